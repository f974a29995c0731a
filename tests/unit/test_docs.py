"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path

from tridist.errors import all_codes

DOCS = Path(__file__).parents[2] / "docs"


def test_every_error_code_is_documented_with_its_class():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert dict(rows) == {code: cls.__name__ for code, cls in all_codes().items()}


def test_links_between_documents_lead_somewhere():
    root = DOCS.parent
    for page in [*root.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
