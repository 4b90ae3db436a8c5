# Everything runs from .venv, made from requirements.lock; the only thing needed is Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help demo test faults bench bench-quick quality api-check check format lock clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import recsys' || { echo "error: a library cannot be loaded; where libgomp is named above: apt-get install libgomp1"; exit 1; }
	@touch $@

demo: .venv/installed  ## Play a grocer's December live; ARGS=--keep leaves everything running
	$(BIN)/recsys demo $(ARGS)

test: .venv/installed  ## Run every test; ARGS go to pytest
	$(BIN)/python -m pytest $(ARGS)

faults: .venv/installed  ## Break everything, over and over, and write docs/guarantees.md (hours)
	RECSYS_TEST_FAULTS=full RECSYS_TEST_FAULTS_RESULTS=$(CURDIR)/.faults.jsonl $(BIN)/python -m pytest tests/faults --timeout=7200 $(ARGS)
	$(BIN)/python -m tests.faults.guarantees .faults.jsonl

bench: .venv/installed .venv/bench-installed  ## Measure everything side by side and write docs/performance.md; ARGS=NAME for a part
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: .venv/installed  ## Compare only; fails when a ratio falls under its bar
	$(BIN)/python -m benchmarks --quick $(ARGS)

quality: .venv/installed  ## Is the product good at what it is for? DATA= names Online Retail; writes docs/quality.md
	$(BIN)/python -m benchmarks.quality $(if $(DATA),--data $(DATA)) $(ARGS)

api-check: .venv/installed  ## Is the HTTP API what it says, and fast enough? Needs wrk; writes docs/performance.md
	CI=true $(BIN)/python -m pytest tests/e2e/test_api.py tests/e2e/test_api_limits.py tests/unit/test_openapi.py tests/unit/test_api_security.py
	$(BIN)/python -m benchmarks.api $(ARGS)

.venv/bench-installed: .venv/installed benchmarks/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement benchmarks/requirements.lock
	@touch $@

check: .venv/installed  ## Lint, format, types, layers, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: .venv/installed  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Pin all dependencies anew
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url --upgrade --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade --constraint requirements.lock --custom-compile-command "make lock" --output-file benchmarks/requirements.lock benchmarks/requirements.in
	rm -rf .venv-lock

clean:  ## Remove everything that make made
	rm -rf .venv .faults.jsonl .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
