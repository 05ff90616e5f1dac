# make run    a throw-away installation of five key systems, with ready-to-paste curl lines
# make test   every test
# make check  format, lint, types, import rules, docs
# make help   all of them
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BOOT := .venv/boot
UV := $(BOOT)/bin/uv
RUN := .venv/bin
READY := .venv/.ready

.PHONY: help run test check bench requirements proof format clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Keywright needs Python 3.11 or newer; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@test -x $(UV) || { echo "setting up .venv (once) …"; $(PYTHON) -m venv --clear .venv && $(PYTHON) -m venv $(BOOT) && $(BOOT)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'; }
	@$(UV) sync --frozen --quiet --all-extras --python $(RUN)/python
	@touch $@

run: $(READY) ## five key systems and an example API on this machine, with curl lines to paste
	@$(RUN)/keywright demo

test: $(READY) ## every test
	@$(RUN)/pytest -n logical --maxprocesses 4 --dist worksteal

check: $(READY) ## format, lint, types, import rules, docs
	@$(RUN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(RUN)/ruff check --quiet .
	@$(RUN)/mypy --no-error-summary
	@said=$$($(RUN)/lint-imports --no-logo) || { echo "$$said"; exit 1; }
	@$(RUN)/pytest tests/test_docs.py

bench: $(READY) ## measure, and write docs/benchmarks.md and .json
	@$(RUN)/python bench/run.py

requirements: $(READY) ## which rows of the requirements are proven, by which tests
	@$(RUN)/python tests/requirements.py

proof: $(READY) ## the long and full-size fault runs
	@KEYWRIGHT_PROOF=1 $(RUN)/pytest -m full -v

format: $(READY) ## write the code the way the check wants it
	@$(RUN)/ruff format --quiet . && $(RUN)/ruff check --fix --quiet .

clean: ## remove what was set up
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
