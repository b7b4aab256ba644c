# Everything starts here; each target sets up what it needs. Options for the run: make run ARGS="seed=1 --out runs/one".
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
# torch first and pinned, on the same line as the project: pip then never weighs another build of it.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet torch==2.13.0 -c constraints.txt

.PHONY: run test test-all check format bench demo clean
.DELETE_ON_ERROR:

run: $(VENV)/.ready
	$(BIN)/persona run --resume $(ARGS)

demo: $(VENV)/.ready
	$(BIN)/persona demo $(ARGS)

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest

test-all: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m "not network"

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready-dev
	$(INSTALL) -e '.[bench]'
	for script in benchmarks/bench_*.py; do \
		$(BIN)/python -m "benchmarks.$$(basename "$$script" .py)" || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python without ensurepip cannot put pip into a new environment by itself; its own pip can.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer must be on the PATH; found none. Install it, or run make PYTHON=/path/to/python." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.ready $@
