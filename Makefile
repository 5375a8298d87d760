# Everything a contributor does, in one word each: see `make help`.
#
# All of it happens in .venv, which is made on first use with any Python >= 3.11 and
# brought up to date when pyproject.toml has changed. PYTHON=python3.12 chooses the
# interpreter, ARGS=... goes to the program behind the word: make test ARGS="-k codec".

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test repetitions chaos stress lint types docs docs-check branches \
    coverage instructions bench bench-quick dist dist-check clean

BIN := .venv/bin
# Tests wait more than they compute, and each process of pytest counts leaks of its own.
# A debugger wants one process: make test ARGS="-n 0 --pdb -k codec".
TOGETHER := -n logical --maxprocesses 8 --dist worksteal
# The parts that must not be wrong are held to every branch.
EXACT := 'src/offloop/core/*,src/offloop/wire/*,src/offloop/worker.py'
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

help:  ## List these words
	@sed -n 's/^\([a-z-]*\):.*## /    make \1 \t/p' $(MAKEFILE_LIST) | expand -t 24

demo: .venv/.demo  ## Run the image server at http://127.0.0.1:8000
	$(BIN)/offloop demo $(ARGS)

test: .venv/.test  ## Run the tests
	@$(BIN)/python -m compileall -q src  # each pool starts an interpreter: all of them at once
	$(BIN)/python -m pytest $(TOGETHER) $(ARGS)

lint: .venv/.lint  ## Check style, spelling and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell src tests examples docs benchmarks *.md
	$(BIN)/lint-imports --no-logo

types: .venv/.lint  ## Check types, as mypy and as pyright see them
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

repetitions: .venv/.test  ## Start and close pools a thousand times: nothing may stay
	OFFLOOP_REPETITIONS=1000 $(BIN)/python -m pytest $(TOGETHER) \
	    -o faulthandler_timeout=0 tests/faults/test_repetitions.py $(ARGS)

stress: .venv/.test  ## Send payloads of all sizes for ten minutes, with workers dying
	OFFLOOP_STRESS=600 $(BIN)/python -m pytest \
	    -o faulthandler_timeout=0 tests/faults/test_payload_stress.py $(ARGS)

chaos: .venv/.test  ## Two minutes in which everything goes wrong at random
	$(BIN)/python tests/faults/chaos.py $(ARGS)

docs: .venv/.docs  ## Build the documentation as a site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

docs-check: .venv/.test  ## Run the code of the documentation and the examples
	$(BIN)/python -m pytest tests/test_docs.py tests/test_examples.py $(ARGS)

# The seed lets models take the same branches each time.
branches: .venv/.test  ## Hold the core to every branch
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(TOGETHER) -q --hypothesis-seed=1 tests/core $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=100 --include='src/offloop/core/*'

coverage: .venv/.test  ## Run the tests and show which lines they missed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(TOGETHER) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --fail-under=100 --include=$(EXACT)

# In an environment of its own: some peers want other versions of what offloop uses.
instructions: .venv/.test  ## Count what a job costs, and fail if it has grown by 10 %
	$(BIN)/python benchmarks/instructions.py --check

bench: .venv-bench/.bench  ## Measure, and compare with all others, in ten minutes
	.venv-bench/bin/python -m benchmarks $(ARGS)

bench-quick: .venv-bench/.bench  ## Measure, and compare with some, in two minutes
	.venv-bench/bin/python -m benchmarks --quick $(ARGS)

dist: .venv/.dist  ## Build the wheel and the source archive into dist
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

dist-check: dist  ## Install the wheel in an empty environment, and use it there
	.ci/installed $(BIN)/python dist

clean:  ## Remove what these words have made, .venv included
	rm -rf .venv .venv-bench benchmarks/node/node_modules .coverage .coverage.* \
	    build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	    .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up: each stamp is newer than what it was made from ---------------------------

# Released versions first: a pre-release may be the newest that is installed.
CANDIDATES = $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
GOOD = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
VERSION = import platform; print(platform.python_version())

ifdef PYTHON  # another one than last time: .venv is made anew
ifneq ($(shell $(PYTHON) -c '$(VERSION)' 2>/dev/null),$(shell cat .venv/.python 2>/dev/null))
.PHONY: .venv/.python
endif
endif

.venv/.python:
	@for python in $(CANDIDATES); do \
	    if $$python -c '$(GOOD)' 2>/dev/null; then \
	        echo "making .venv with $$python"; \
	        $$python -m venv --clear .venv || exit 1; \
	        exec $(BIN)/python -c '$(VERSION)' >$@; \
	    fi; \
	done; \
	echo "offloop needs Python 3.11 or newer with its venv module, and none of these is:" >&2; \
	echo "    $(CANDIDATES)" >&2; \
	echo "Install one (on Debian: python3 and python3-venv), or name it:" >&2; \
	echo "    make PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1

.venv/.demo: .venv/.python pyproject.toml
	$(PIP) --upgrade 'pip>=25.1'  # older ones do not know --group
	$(PIP) --editable '.[demo]'
	@touch $@

.venv/.test: .venv/.demo
	$(PIP) --group test
	@touch $@

.venv-bench/.bench: .venv/.python pyproject.toml benchmarks/node/package.json
	$(BIN)/python -m venv .venv-bench
	.venv-bench/bin/python benchmarks/install.py
	@touch $@

.venv/.dist: .venv/.python pyproject.toml
	$(PIP) --upgrade 'pip>=25.1'  # older ones do not know --group
	$(PIP) --group dist
	@touch $@

.venv/.docs: .venv/.python pyproject.toml
	$(PIP) --upgrade 'pip>=25.1'  # older ones do not know --group
	$(PIP) --group docs --editable .
	@touch $@

.venv/.lint: .venv/.test
	$(PIP) --group lint
	@touch $@
