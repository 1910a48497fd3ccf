# Two commands: `make checkup` (the main job) and `make test` (everything that must pass).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: checkup test clean

checkup: .venv/installed
	$(BIN)/vitscope checkup --out checkups/first

test: .venv/installed-test
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -e '.[test]'
	touch $@

clean:
	rm -rf .venv
