# Two commands do everything, set-up included: `make figures` and `make test`.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
SCALE ?= quick

.PHONY: help figures smoke test clean

help:
	@echo "make figures   run every analysis at scale=$(SCALE) and write results/"
	@echo "make test      lint, types, import floors and tests"
	@echo "make smoke     every analysis at its smallest scale, into build/smoke"
	@echo "make clean     remove .venv, caches and records (figures stay)"

$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 was found on PATH: install one."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

figures: $(VENV)/ready
	$(BIN)/python -m analyses all scale=$(SCALE)

smoke: $(VENV)/ready
	$(BIN)/python -m analyses all scale=smoke results=build/smoke

test: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal  # one thread a core: arrays are tiny

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis results/*/records
