# `make run` and `make test` work first, on a machine with only Python 3.11 or later, pip and make.
# PYTHON=python3.12 chooses another interpreter; ARGS hands options on: make run ARGS="--recipe smoke".

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install run test lab check format clean

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

install: $(READY)  ## make .venv with the pinned versions

run: $(READY)  ## the main job: the ladder of recipe tiny, every page and the report
	$(BIN)/labkit run $(ARGS)

test: $(READY)  ## every test
	$(BIN)/python -m pytest $(ARGS)

lab: $(READY)  ## open JupyterLab on the notebooks
	$(BIN)/labkit lab $(ARGS)

check: $(READY)  ## the quick gate: style, types, fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

format: $(READY)  ## put the code into its one format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches; runs and votes in outputs/ stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find labkit widgets tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "labkit needs Python 3.11 or later: name one with make PYTHON=python3.12 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $(READY)
