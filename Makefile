# Everything a contributor and CI do. A fresh clone needs a Python of 3.11 or newer, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make constraints` resolves with.
UV := uv==0.13.9
# Only the plugins that the tests use, whatever else is installed.
PYTEST := env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(BIN)/python -m pytest -q -p _hypothesis_pytestplugin
PARALLEL := -p xdist.plugin -n $(shell .ci/processes) --dist worksteal
# For tests that are to take hours.
UNHURRIED := -o faulthandler_timeout=0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help setup runtime run test test-more proof crash histories check format generate bench profile \
    constraints clean
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

# Both do nothing while the environment is newer than the files that it is made from.
runtime:
	@.ci/environment $(VENV) $(PYTHON) cli

setup: ## make .venv with the package and all development tools
	@.ci/environment $(VENV) $(PYTHON) dev

run: runtime ## run the example workflow
	@$(BIN)/pyworkflow run examples/aws/order_workflow.py --skip-time --input '{"order_id": "ORD-123"}'

test: setup ## run the tests, on all processors; ARGS='tests/engine -k gather'
	@$(PYTEST) $(PARALLEL) $(ARGS)

test-more: setup ## run them on the other Pythons, with the lowest and newest dependencies; PARTS='3.14 lowest'
	@.ci/test-more $(PARTS)

proof: setup ## run them with many more examples and kills; takes long; ARGS='tests/corpus -k gather'
	@HYPOTHESIS_PROFILE=proof CRASH_KILLS=$(or $(KILLS),2000) $(PYTEST) $(UNHURRIED) $(PARALLEL) $(ARGS)

crash: setup ## only kill thousands of worker processes; takes long; KILLS=500, CRASH_SEED=7
	@CRASH_KILLS=$(or $(KILLS),2000) $(PYTEST) $(UNHURRIED) tests/crash $(ARGS)

histories: setup ## record histories for shapes that have none, or anew: SHAPES='gather children'
	@$(BIN)/python -m tests.corpus.test_histories $(SHAPES)

check: setup ## format, lint, generated files, types, architecture
	@$(BIN)/ruff format --check --quiet . || { echo 'make format puts that right.'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/python tools/generate_sync.py --check
	@$(BIN)/mypy --no-error-summary
	@test ! -d tests/typing || $(BIN)/pyright
	@$(PYTEST) tests/test_architecture.py

format: setup ## format the code and sort the imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet . || true

generate: setup ## write the blocking twins of async modules
	@$(BIN)/python tools/generate_sync.py

bench: setup ## measure beside other libraries; ARGS='--publish' updates docs/performance.md
	@$(BIN)/python benchmarks/run.py $(ARGS)

profile: setup ## show where the time of a step goes
	@$(BIN)/python benchmarks/hot_path.py

constraints: ## resolve anew which versions `make` installs
	@test -x .venvs/uv/bin/uv || $(PYTHON) -m venv .venvs/uv
	@.venvs/uv/bin/python -m pip install -qq --disable-pip-version-check $(UV)
	@.ci/constraints .venvs/uv/bin/uv

clean: ## remove environments, caches and build output
	rm -rf $(VENV) .venvs .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
