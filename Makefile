PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
N ?= 10000

.PHONY: help quickstart test fuzz format lint type clean

help:            ## show this text
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

quickstart: .venv/installed  ## install, then train and compare both agents on the shipped data (minutes)
	$(BIN)/python scripts/quickstart.py

test: .venv/installed-dev    ## the whole test suite
	$(BIN)/python -m pytest -n 2

fuzz: .venv/installed-dev    ## commands on N files made wrong, in structure and bytes (N=10000)
	$(BIN)/python tests/fuzz/campaign.py --cases $(N) --report fuzz-bad.jsonl

format: .venv/installed-dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: .venv/installed-dev    ## check format, style and which package imports which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: .venv/installed-dev    ## check the types
	$(BIN)/mypy

clean:           ## remove what the tools left (never runs/)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

KERNELS := setup.py $(wildcard aaren_rl/ops/cpu/*.cpp aaren_rl/ops/cpu/*.h)

.venv/installed: .venv/bin/python pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	@touch $@
