# make run    a throw-away installation of five key systems, with ready-to-paste curl lines
# make test   every test
# make check  format, lint, types, import rules, docs, and no credential in the repository
# make help   all of them
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BOOT := .venv/boot
UV := $(BOOT)/bin/uv
RUN := .venv/bin
READY := .venv/.ready

# Where no compiled code is kept, each of the thousand processes that the tests start would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

# Whoever else is installing is waited for, in seconds: a new machine often still is.
INSTALL := apt-get install -qq -o DPkg::Lock::Timeout=300
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable
VENDORED := src/keywright/server/swagger_ui

.PHONY: help browser proxies run test check bench requirements proof screenshots format vendor clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Keywright needs Python 3.11 or newer; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@test -x $(UV) || { echo "setting up .venv (once) …"; $(PYTHON) -m venv --clear .venv && $(PYTHON) -m venv $(BOOT) && $(BOOT)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'; }
	@$(UV) sync --frozen --quiet --all-extras --python $(RUN)/python
	@touch $@

run: $(READY) ## five key systems and an example API on this machine, with curl lines to paste
	@$(RUN)/keywright demo

browser:
	@for name in $${KEYWRIGHT_TEST_BROWSER:-$(BROWSERS)}; do if command -v "$$name" >/dev/null; then exit 0; fi; done; \
		echo "installing Chromium (once) …"; if test $$(id -u) = 0; then root=; else root="sudo -n"; fi; \
		{ $$root apt-get update -qq && $$root $(INSTALL) chromium; } >/dev/null 2>&1 \
		|| echo "that did not work: install Chromium, or name one in KEYWRIGHT_TEST_BROWSER"

# A file that says so keeps what is installed from being started: nobody asked for a web server on port 80.
proxies:
	@if test -x /usr/sbin/nginx && test -x /usr/sbin/haproxy; then exit 0; fi; \
		echo "installing nginx and HAProxy (once) …"; if test $$(id -u) = 0; then root=; else root="sudo -n"; fi; quiet=/usr/sbin/policy-rc.d; \
		{ if test -e $$quiet; then mine=; else mine=y; printf '#!/bin/sh\nexit 101\n' | $$root tee $$quiet; $$root chmod 755 $$quiet; fi; \
		$$root apt-get update -qq; code=0; $$root $(INSTALL) nginx haproxy || code=$$?; test -z "$$mine" || $$root rm -f $$quiet; test $$code = 0; } >/dev/null 2>&1 \
		|| echo "that did not work: install nginx and haproxy"

test: $(READY) browser proxies ## every test
	@$(RUN)/pytest -n logical --maxprocesses 4 --dist worksteal

check: $(READY) ## format, lint, types, import rules, docs, no credential in the repository
	@$(RUN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(RUN)/ruff check --quiet .
	@$(RUN)/mypy --no-error-summary
	@said=$$($(RUN)/lint-imports --no-logo) || { echo "$$said"; exit 1; }
	@$(RUN)/pytest tests/test_docs.py tests/test_repository.py

bench: $(READY) ## measure, and write docs/benchmarks.md and .json
	@code=0; PYTHONPATH=tests $(RUN)/python bench/run.py || code=$$?; PYTHONPATH=tests $(RUN)/python bench/fleet.py || code=$$?; exit $$code

requirements: $(READY) ## which rows of the requirements are proven, by which tests
	@$(RUN)/python tests/requirements.py -n logical --maxprocesses 4 --dist worksteal

proof: $(READY) ## the long and full-size fault runs
	@KEYWRIGHT_PROOF=1 $(RUN)/pytest -m full -v

screenshots: $(READY) browser ## the screens of the console, into docs/screenshots
	@KEYWRIGHT_SCREENSHOTS=1 $(RUN)/pytest tests/test_console_walks.py tests/test_provider_walks.py

format: $(READY) ## write the code the way the check wants it
	@$(RUN)/ruff format --quiet . && $(RUN)/ruff check --fix --quiet .

vendor: ## bring the parts of other people's that stand in the wheel, as they were released; needs npm
	@into=$$(mktemp -d) && cd $$into && npm pack --silent swagger-ui-dist@$$(cat $(CURDIR)/$(VENDORED)/VERSION) >/dev/null && tar -xzf *.tgz \
		&& cd package && sha256sum --check --quiet $(CURDIR)/$(VENDORED)/SHA256SUMS \
		&& cut -c67- $(CURDIR)/$(VENDORED)/SHA256SUMS | xargs -I{} cp {} $(CURDIR)/$(VENDORED)/

clean: ## remove what was set up
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
