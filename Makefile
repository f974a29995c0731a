# Everything a checkout needs, from a bare Debian 12 with Python, make and git. `make help` lists the targets.

PYTHON ?= python3
# Passed on to pytest; files go to one worker each, so that module fixtures (servers) start once, and in the order of
# tests/conftest.py: by default, those with the fewest tests would come last, and some of these take a minute. A test
# that ends its process is given to the next process again: the limit keeps that from going on.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 2
TESTS ?= tests
HELLO_ARGS ?=
BENCH_ARGS ?=
# Of `make chaos` (600 seconds unless said otherwise) and `make soak` (1800); without a SEED each run has a new one.
DURATION ?=
SEED ?=
CHAOS_ARGS ?=

VENV := .venv
BOOTSTRAP := $(PYTHON) -m scripts.bootstrap
SHELL_SCRIPTS := .ci/run $(wildcard scripts/*.sh container/*.sh)

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

.PHONY: help hello test chaos soak lint types bench bench-check venv lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: PYTHON=$(PYTHON)  TESTS=$(TESTS)  PYTEST_ARGS='$(PYTEST_ARGS)'  HELLO_ARGS=..."

hello: ## run hello world: three workers, NATS, UCX, Triton
	@$(BOOTSTRAP) --extras all
	@$(VENV)/bin/python examples/hello_world/main.py $(HELLO_ARGS)

test: venv ## run every test
	@$(VENV)/bin/python -m pytest $(PYTEST_ARGS) $(TESTS)

chaos: venv ## random faults for DURATION=600 seconds from SEED=...; the last line is the ledger
	@PYTHONPATH=$(CURDIR)/tests $(VENV)/bin/python -m chaos --duration $(or $(DURATION),600) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

soak: venv ## load without faults for DURATION=1800 seconds; fails when memory grows
	@PYTHONPATH=$(CURDIR)/tests $(VENV)/bin/python -m chaos --soak --duration $(or $(DURATION),1800) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

lint: venv ## ruff, import contracts, shellcheck
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/shellcheck -x $(SHELL_SCRIPTS)

types: venv ## mypy, strict
	@$(VENV)/bin/mypy -p tridist -p scripts.bootstrap

bench: venv ## every benchmark against its floor and its target (BENCH_ARGS=--quick: a minute each)
	@$(VENV)/bin/python benchmarks/suite.py $(BENCH_ARGS)

bench-check: venv ## quick benchmarks against the committed ratios; fails on a clear regression
	@$(VENV)/bin/python benchmarks/check.py

venv: ## make .venv with the development tools
	@$(BOOTSTRAP) --extras all,dev

lock: ## resolve constraints.txt afresh
	@scripts/lock.sh "$(PYTHON)"

clean: ## remove .venv, caches and build leftovers
	rm -rf $(VENV) .venv.lock .tridist build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
