# Everything a user or a maintainer does, in one word each. Needs make and Python 3.11; the rest goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# The installation is as new as the lock: a changed lock has another hash, and so another stamp.
STAMP := $(VENV)/.installed-$(shell sha256sum requirements.lock pyproject.toml | sha256sum | cut -c1-16)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest

export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: help install run test test-long check lock base clean distclean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(STAMP) ## create .venv and install the lock into it

$(STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "VITAL needs Python 3.11, and there is no $(PYTHON) here: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "VITAL needs Python 3.11, and $(PYTHON) is $$($(PYTHON) --version)" >&2; exit 1; }
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV) || { echo "cannot make $(VENV): on Debian and Ubuntu install python3.11-venv" >&2; exit 1; }
	@echo "installing into $(VENV); the first time takes some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

run: $(STAMP) ## run the line on the sample pool; what is up to date is not run again
	@$(BIN)/dvc pull data.dvc infra/base/dvc.yaml
	@$(BIN)/vital run

test: $(STAMP) ## run the whole default test suite
	@$(BIN)/dvc pull --quiet data.dvc infra/base/dvc.yaml || echo "going on with the pool and base models that are here" >&2
	$(PYTEST) -n 2 --dist worksteal -m "not long"

test-long: $(STAMP) ## run the tests that take minutes each
	$(PYTEST) -m long

check: $(STAMP) ## linters, types, import rules, agreement of stages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(PYTEST) tests/architecture

lock: $(STAMP) ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --group dev --python-version 3.11 --upgrade --no-header --no-annotate --no-emit-index-url --output-file requirements.lock

base: $(STAMP) ## make the base models anew and put them into the seed remote
	$(BIN)/dvc repro infra/base/dvc.yaml
	$(BIN)/dvc push --remote seed infra/base/dvc.yaml

clean: ## remove caches and unfinished work; results, stores and .venv stay
	rm -rf .work .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## also remove .venv, results and workspaces; the stores stay
	rm -rf $(VENV) artifacts workspaces .vital/prefect
