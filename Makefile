# Everything a contributor and CI do. A fresh clone needs a Python of 3.11 or newer, nothing else.

PYTHON ?= python3
PYTHONS ?= 3.11 3.12 3.13 3.14
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
# Only the plugins that the tests use, whatever else is installed.
PYTEST := env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(BIN)/python -m pytest -q -p _hypothesis_pytestplugin
# Spread over the processors of the machine.
PARALLEL := -p xdist.plugin -n auto --dist worksteal
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help setup run test test-all proof crash histories check format bench profile clean
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp ## make .venv with the package and all development tools

# The stamp is newer than pyproject.toml while the environment is up to date. A venv whose Python
# has gone is made anew.
$(VENV)/.stamp: pyproject.toml
	@$(BIN)/python -c '' 2>/dev/null || rm -rf $(VENV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo '$(PYTHON) is not Python 3.11 or newer: name one with make PYTHON=…'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

run: setup ## run the example workflow
	@$(BIN)/pyworkflow run examples/aws/order_workflow.py --skip-time --input '{"order_id": "ORD-123"}'

test: setup ## run the tests, on all processors; ARGS='tests/engine -k gather'
	@$(PYTEST) $(PARALLEL) $(ARGS)

test-all: ## run the tests on each supported Python that this machine has
	@.ci/test-all $(PYTHONS)

proof: setup ## run the tests with many more examples; takes long; ARGS='tests/corpus -k gather'
	@HYPOTHESIS_PROFILE=proof $(PYTEST) $(PARALLEL) $(ARGS)

crash: setup ## kill thousands of worker processes; takes long; KILLS=500, CRASH_SEED=7
	@CRASH_KILLS=$(or $(KILLS),2000) $(PYTEST) tests/crash $(ARGS)

histories: setup ## record histories for shapes that have none, or anew: SHAPES='gather children'
	@$(BIN)/python -m tests.corpus.test_histories $(SHAPES)

check: setup ## format, lint, types, architecture
	@$(BIN)/ruff format --check --quiet . || { echo 'make format puts that right.'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@test ! -d tests/typing || $(BIN)/pyright
	@$(PYTEST) tests/test_architecture.py

format: setup ## format the code and sort the imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet . || true

bench: setup ## measure beside other libraries; ARGS='--publish' updates docs/performance.md
	@$(BIN)/python benchmarks/run.py $(ARGS)

profile: setup ## show where the time of a step goes
	@$(BIN)/python benchmarks/hot_path.py

clean: ## remove environments, caches and build output
	rm -rf $(VENV) .venvs .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
