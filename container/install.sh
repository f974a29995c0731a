#!/bin/sh
# Runs inside the image build: make the virtual environment and install tridist into it.
# Usage: install.sh dependencies|package FRAMEWORK VENV     (in a directory with pyproject.toml and constraints.txt)
set -eu

step=$1 framework=$2 venv=$3

if [ -e /run/secrets/pip_conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip_conf; fi
if [ -e /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi

case $framework in
    STANDARD) extras=all site= ;;
    # The base image brings Triton, its Python package and the framework: the environment builds on them.
    TENSORRTLLM | VLLM) extras=ucx,server site=--system-site-packages ;;
    *) echo "install.sh: unknown framework: $framework" >&2; exit 2 ;;
esac

pip() { "$venv/bin/python" -m pip "$@"; }

dependencies() {
    # shellcheck disable=SC2086 # empty, or one option
    python3 -m venv $site "$venv"
    # What the base image has installed stays as it is, so our pins for those packages do not apply.
    "$venv/bin/python" "$(dirname "$0")/pins.py" constraints.txt >pins.txt
    pip install -c pins.txt setuptools
    # An empty package stands in for the sources, which change more often than what they need.
    mkdir -p src/tridist
    touch src/tridist/__init__.py
    pip install -c pins.txt --no-build-isolation ".[$extras]"
    pip uninstall --yes tridist
    rm -rf src build
    if [ -n "$site" ]; then official_tritonserver; fi
}

# NVIDIA's images carry the wheel; some install it, some leave that to us.
official_tritonserver() {
    if "$venv/bin/python" -c 'import tritonserver; tritonserver.Server' 2>/dev/null; then return; fi
    for wheel in "${TRITON_WHEELS:-/opt/tritonserver/python}"/tritonserver-*.whl; do
        if [ ! -e "$wheel" ]; then
            echo "install.sh: no tritonserver package in this base image; name a Triton one with --base-image" >&2
            exit 1
        fi
        pip install --no-deps "$wheel"
    done
}

package() {
    pip install --no-deps --no-build-isolation .
    rm -rf build
    "$venv/bin/python" -c 'import tridist'
}

case $step in
    dependencies | package) "$step" ;;
    *) echo "install.sh: unknown step: $step" >&2; exit 2 ;;
esac
