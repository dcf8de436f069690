# Two commands set everything up on a machine with Python 3.11+ and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
READY := $(VENV)/.ready

.PHONY: demo test long check lint clean help

help:
	@echo "make demo   the whole way from probe to report on a tiny model, about two minutes"
	@echo "make test   the tests"
	@echo "make check  format, lint, types, import rules, then the tests"

demo: $(READY)
	$(BIN)/advisor demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

long: $(READY)
	$(BIN)/python -m pytest -m long

check: lint test

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# torch goes first and alone: with it in place nothing else asks for another build of it
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "tunedeck needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch --constraint constraints.txt
	$(PIP) --editable '.[train,dev]' --constraint constraints.txt
	@touch $(READY)

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
