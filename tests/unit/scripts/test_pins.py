import subprocess
import sys
from pathlib import Path

from scripts.pins import normalise, select

ROOT = Path(__file__).resolve().parents[3]


def test_pins_of_packages_that_are_there_are_dropped_whatever_their_spelling():
    lines = ["# header", "", "numpy==1.26.4", "ml_dtypes==0.5.4", "zope.event==6.2", "uvloop==0.23.0  # fast"]
    assert list(select(lines, ["NumPy", "ml-dtypes", "Zope_Event"])) == ["uvloop==0.23.0"]


def test_what_every_environment_has_stays_pinned():
    assert list(select(["setuptools==84.2.1"], ["pip", "setuptools", "wheel"])) == ["setuptools==84.2.1"]


def test_names_are_compared_as_the_packaging_specification_says():
    assert normalise("Zope._-.Interface") == "zope-interface"


def test_the_script_looks_at_the_python_that_runs_it(tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("pytest==0.0\nno-such-package==1.0\n")
    command = [sys.executable, str(ROOT / "scripts" / "pins.py"), str(constraints)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "no-such-package==1.0\n"
