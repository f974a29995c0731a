#!/usr/bin/env bash
# Resolve tridist[all,dev] afresh and write the exact versions to constraints.txt, below its header.
# Usage: scripts/lock.sh [PYTHON]
set -euo pipefail

python=${1:-python3}
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

"$python" -m venv "$scratch/venv"
pip() { "$scratch/venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"; }
# Resolving backtracks through many releases; current pip does that far faster than the one a distribution ships.
pip install --upgrade pip

# The build backend belongs to the set: `make` installs without build isolation.
backend=$("$scratch/venv/bin/python" - "$root/pyproject.toml" <<'PY'
import re
import sys

text = open(sys.argv[1], encoding="utf-8").read()
print(" ".join(re.findall(r'"([^"]+)"', re.search(r"^requires = \[(.*?)\]", text, re.M | re.S)[1])))
PY
)
echo "Resolving (this takes minutes) ..."
# shellcheck disable=SC2086 # one word per requirement
pip install --dry-run --ignore-installed --report "$scratch/report.json" "${root}[all,dev]" $backend

"$scratch/venv/bin/python" - "$scratch/report.json" >"$scratch/pins" <<'PY'
import json
import sys

chosen = json.load(open(sys.argv[1], encoding="utf-8"))["install"]
pins = {f"{item['metadata']['name']}=={item['metadata']['version']}" for item in chosen}
print("\n".join(sorted((pin for pin in pins if not pin.startswith("tridist==")), key=str.lower)))
PY

{ grep '^#' "$root/constraints.txt"; cat "$scratch/pins"; } >"$scratch/constraints.txt"
# Not mv: that would carry over the scratch file's private mode.
cat "$scratch/constraints.txt" >"$root/constraints.txt"
echo "constraints.txt: $(wc -l <"$scratch/pins") packages pinned"
