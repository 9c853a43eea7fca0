PYTHON ?= python3
PYTHONS ?= python3.11 python3.12 python3.13
TORCH ?= cpu
TESTS ?= tests
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
N ?= 10000

.PHONY: help quickstart test test-python fuzz format lint type docs wheel wheel-any wheels bench gpu clean kills endurance

help:            ## show this text
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

quickstart: $(VENV)/installed  ## install, then train and compare both agents on the shipped data (minutes)
	$(BIN)/python scripts/quickstart.py

test: $(VENV)/installed-dev    ## the whole test suite
	$(BIN)/python -m pytest -n 2

test-python:     ## the suite on every interpreter of PYTHONS that is there (TESTS=tests)
	@for python in $(PYTHONS); do \
	  if ! command -v $$python >/dev/null; then echo "$$python: not installed, skipped"; continue; fi; \
	  echo "$$python:"; \
	  $(MAKE) --no-print-directory VENV=.venv-$$python PYTHON=$$python .venv-$$python/installed-dev \
	    || exit 1; \
	  .venv-$$python/bin/python -m pytest -n 2 $(TESTS) || exit 1; \
	done

fuzz: $(VENV)/installed-dev    ## commands on N files made wrong, in structure and bytes (N=10000)
	$(BIN)/python tests/fuzz/campaign.py --cases $(N) --report fuzz-bad.jsonl

kills: N := 50
kills: $(VENV)/installed-dev   ## SIGKILL N times: training, saving, sweeps, conversion, collection (N=50)
	$(BIN)/python tests/kills.py --kills $(N)

endurance: $(VENV)/installed-dev  ## does memory grow? a million steps in each mode, evaluations, trainings
	$(BIN)/python tests/endurance.py

format: $(VENV)/installed-dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/installed-dev    ## check format, style and which package imports which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: $(VENV)/installed-dev    ## check the types
	$(BIN)/mypy

docs: $(VENV)/installed-dev    ## the documentation site in site/, checked; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/building      ## a wheel for this machine, with the kernels, in dist/
	$(BIN)/python -m build --wheel

wheel-any: $(VENV)/building  ## the source, and a wheel without the kernels for any machine, in dist/
	$(BIN)/python -m build --sdist
	AAREN_RL_PURE=1 $(BIN)/python -m build --wheel

wheels: $(VENV)/building     ## wheels for manylinux of this architecture, in dist/; needs docker
	$(BIN)/python -m pip install -q cibuildwheel
	$(BIN)/python -m cibuildwheel --output-dir dist

bench: $(VENV)/installed-dev   ## all tables of benchmarks/, for an idle machine (QUICK=1: do they run?)
	$(BIN)/python -m benchmarks.all $(if $(QUICK),--quick)

gpu:             ## tests and measurements on a CUDA card; uses PYTHON's torch, installs nothing
	PYTHON=$(PYTHON) scripts/gpu_check.sh

clean:           ## remove what the tools left (never runs/)
	rm -rf .venv .venv-* build dist site gpu-check *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

KERNELS := setup.py $(wildcard aaren_rl/ops/cpu/*.cpp aaren_rl/ops/cpu/*.h)
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

# PyTorch from its own index: TORCH=cpu has no CUDA libraries (200 MB, not 3 GB); TORCH=cu128 and so
# on are the builds for GPUs. Where that index is not reachable, torch comes with everything else.
$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt $(KERNELS)
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(PIP) --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/$(TORCH) torch \
	  || echo "PyTorch's own index is not reachable; torch is taken from the usual one"
	$(PIP) -e .
	@touch $@

$(VENV)/building: $(VENV)/bin/python
	$(PIP) build
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e ".[dev,docs]"
	@touch $@
