# Two commands: `make checkup` (the main job) and `make test` (everything that must pass).
PYTHON ?= python3
BIN := .venv/bin
# Idle threads sleep: spinning ones would take the cores from whatever else runs.
export OMP_WAIT_POLICY ?= passive

.PHONY: checkup test clean

checkup: .venv/installed
	$(BIN)/vitscope checkup --out checkups/first

test: .venv/installed-test
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --disable-pip-version-check -q -e '.[test]'
	touch $@

clean:
	rm -rf .venv
