# Every target installs what it needs into .venv first, and again when pyproject.toml changes.
# Variables: PYTHON (the interpreter of .venv), PYTHON_MIN (that of test-min, 3.10), PIP_ARGS
# (options of every pip install), TORCH_INDEX_URL (where to take torch and torchvision from: on
# Linux the default is a CUDA build of several GB, and
# TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu a CPU build of 0.2 GB), PYTEST_ARGS,
# WORKERS (processes of the tests, of one thread each), SPHINXOPTS, OMP_NUM_THREADS.

PYTHON ?= python3
PYTHON_MIN ?= python3.10
PIP_ARGS ?=
TORCH_INDEX_URL ?=
PYTEST_ARGS ?=
WORKERS ?= 2
SPHINXOPTS ?=
OMP_NUM_THREADS ?= 2
export OMP_NUM_THREADS

BIN := .venv/bin

.PHONY: help quickstart test test-slow test-min lint format docs notebooks clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

quickstart: .venv/.plot  ## Annotate, learn and compare on the shipped data; writes build/quickstart/
	$(BIN)/python examples/plot_quickstart.py

test: .venv/.test  ## Run the tests and the examples in docstrings and pages, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

test-slow: .venv/.test  ## Run the slow tests: many kills, many broken images, a cluster, the examples
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

test-min: .venv-min/.test  ## Run them with the oldest supported dependencies, on Python 3.10
	OMP_NUM_THREADS=1 .venv-min/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

lint: .venv/.test  ## Check style, formatting and type hints
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.test  ## Format, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.docs  ## Build the site into build/docs/, with the examples run; SPHINXOPTS="-D plot_gallery=0" runs none
	$(BIN)/sphinx-build -W --keep-going -b html $(SPHINXOPTS) docs build/docs

notebooks: .venv/.notebooks  ## Run two examples as notebooks; writes examples/notebooks/
	$(BIN)/python tools/make_notebooks.py

clean:  ## Remove what the other targets make, the environments included
	rm -rf .venv .venv-min build dist .pytest_cache .ruff_cache .mypy_cache
	rm -rf docs/auto_examples docs/generated docs/sg_execution_times.rst
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv-min/bin/python:
	$(PYTHON_MIN) -m venv .venv-min

# One stamp an extra: .venv/.test is there once the package is installed with [test].
.venv/.%: pyproject.toml | .venv/bin/python
	$(if $(TORCH_INDEX_URL),$(BIN)/python -m pip install $(PIP_ARGS) --index-url $(TORCH_INDEX_URL) torch torchvision)
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[$*]"
	touch $@

.venv-min/.test: pyproject.toml constraints/minimum.txt | .venv-min/bin/python
	.venv-min/bin/python -m pip install $(PIP_ARGS) -c constraints/minimum.txt -e ".[test]"
	touch $@
