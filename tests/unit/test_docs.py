"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tridist.errors import all_codes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = ("src", "tests", "benchmarks", "examples", "container", "scripts")
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_every_error_code_is_documented_with_its_class():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert dict(rows) == {code: cls.__name__ for code, cls in all_codes().items()}


@each_page
def test_links_between_documents_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@each_page
def test_links_into_a_document_lead_to_a_heading(page: Path):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        headings = re.findall(r"^#+ (.+)$", (page.parent / target if target else page).read_text(), re.MULTILINE)
        assert anchor in {_anchor(heading) for heading in headings}, f"{page.name} links to {target}#{anchor}"


@each_page
def test_every_test_that_a_document_names_is_there(page: Path, defined_tests: set[str]):
    assert set(re.findall(r"`(test_\w+)`", page.read_text())) - defined_tests == set()


@each_page
def test_every_file_that_a_document_names_is_there(page: Path, files: list[str]):
    named = re.findall(r"`([\w./-]+\.(?:py|sh|toml|conf|md))`", page.read_text())
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []


@pytest.fixture(scope="module")
def files() -> list[str]:
    found = [*ROOT.glob("*.*"), *DOCS.rglob("*.md"), *(path for top in SOURCES for path in (ROOT / top).rglob("*.*"))]
    return [path.as_posix() for path in found]


@pytest.fixture(scope="module")
def defined_tests() -> set[str]:
    return {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}


def _anchor(heading: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
