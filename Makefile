# Everything runs from .venv, made from the locks in requirements/; the only thing needed is Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# The newest supported Python on PATH; make test-newest NEWEST=... names another.
NEWEST ?= $(firstword $(foreach version,3.13 3.12 3.11,$(shell python$(version) -c 'print("python$(version)")' 2>/dev/null)) $(PYTHON))

.PHONY: help demo test test-all test-newest faults fuzz bench bench-quick quality poisoning api-check audit sbom check format lock clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Install a lock, and this folder: $(call install,LOCK,what it is,MB on disk)
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
@echo "Installing $(2) into $(VENV): $$(grep -c == $(1)) packages, about $(3) MB. Nothing is printed meanwhile; it usually takes one to two minutes."
@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement $(1)
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
@$(BIN)/python -c 'import implicit' || { echo "error: a library cannot be loaded; where libgomp is named above: apt-get install libgomp1"; exit 1; }
endef

$(VENV)/demo-installed: requirements/demo.lock pyproject.toml
	$(call install,$<,the libraries of the demo,900)
	@touch $@

$(VENV)/installed: requirements/dev.lock requirements/demo.lock pyproject.toml
	$(call install,$<,all libraries and what the tests need,1200)
	@touch $(VENV)/demo-installed $@

demo: $(VENV)/demo-installed  ## Play a grocer's December live; ARGS=--keep leaves everything running
	$(BIN)/recsys demo $(ARGS)

# Many tests wait more than they compute, so there are more workers than two cores. With ARGS there is one process,
# in which a debugger works as well; with -n 4 among them there are workers again.
# Compiled modules are kept, whatever the environment says: tests start many processes.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(if $(ARGS),,-n 4)

test: $(VENV)/installed  ## Run the tests that one waits for, in minutes; ARGS go to pytest
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/installed  ## Run every test; ARGS go to pytest
	$(PYTEST) $(ARGS)

# A virtual environment of its own, unless the first one is of this version.
test-newest: $(VENV)/installed  ## Unit and property tests on the newest Python of 3.11 to 3.13 that is on PATH
	@minor='import sys; print(sys.version_info[:2])'; venv=.venv-newest; \
	if [ "$$($(NEWEST) -c "$$minor")" = "$$($(BIN)/python -c "$$minor")" ]; then venv=$(VENV); fi; \
	$(MAKE) --no-print-directory test VENV=$$venv PYTHON=$(NEWEST) ARGS="tests/unit tests/property $(ARGS)"

faults: $(VENV)/installed  ## Break everything, over and over, and write docs/guarantees.md (hours)
	RECSYS_TEST_FAULTS=full RECSYS_TEST_FAULTS_RESULTS=$(CURDIR)/.faults.jsonl $(BIN)/python -m pytest tests/faults --timeout=7200 $(ARGS)
	$(BIN)/python -m tests.faults.guarantees .faults.jsonl

fuzz: $(VENV)/installed  ## Read hostile files and records; ARGS="--minutes 60 --seed 7"
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/installed $(VENV)/bench-installed  ## Measure everything side by side and write docs/performance.md; ARGS=NAME for a part
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/installed  ## Compare only; fails when a ratio falls under its bar
	$(BIN)/python -m benchmarks --quick $(ARGS)

quality: $(VENV)/installed  ## Is the product good at what it is for? DATA= names Online Retail; writes docs/quality.md
	$(BIN)/python -m benchmarks.quality $(if $(DATA),--data $(DATA)) $(ARGS)

poisoning: $(VENV)/installed  ## How far can bots push an item? DATA= names Online Retail; writes docs/quality.md
	$(BIN)/python -m benchmarks.poisoning $(if $(DATA),--data $(DATA)) $(ARGS)

api-check: $(VENV)/installed  ## Is the HTTP API what it says, and fast enough? Needs wrk; writes docs/performance.md
	CI=true $(BIN)/python -m pytest tests/e2e/test_api.py tests/e2e/test_api_limits.py tests/unit/test_openapi.py tests/unit/test_api_security.py
	$(BIN)/python -m benchmarks.api $(ARGS)

$(VENV)/bench-installed: $(VENV)/installed benchmarks/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement benchmarks/requirements.lock
	@touch $@

check: $(VENV)/installed  ## Lint, format, types, layers, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# In a virtual environment of its own: what looks at the locks shall not be among what they lock.
AUDIT := .venv-audit
$(AUDIT)/installed: deploy/audit/requirements.lock
	@test -x $(AUDIT)/bin/pip || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement $<
	@touch $@

audit: $(AUDIT)/installed  ## Which locked packages have known vulnerabilities? Says so where no data can be had
	$(AUDIT)/bin/python deploy/audit/audit.py requirements/dev.lock benchmarks/requirements.lock deploy/audit/requirements.lock

sbom: $(AUDIT)/installed  ## Write dist/sbom.json: what the image of the services is made of (CycloneDX)
	@mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py requirements requirements/services.lock --pyproject pyproject.toml --mc-type application --output-reproducible --output-format JSON --validate --output-file dist/sbom.json

format: $(VENV)/installed  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The versions of all purposes are those of dev.lock, which has everything; the others are cut from it.
COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
CUT = $(COMPILE) --constraint requirements/dev.lock
lock:  ## Lock what pyproject.toml asks for; ARGS=--upgrade takes the newest versions
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	$(COMPILE) $(ARGS) --extra dev --group build --output-file requirements/dev.lock pyproject.toml
	$(CUT) --extra demo --group build --output-file requirements/demo.lock pyproject.toml
	$(CUT) --extra services --output-file requirements/services.lock pyproject.toml
	$(CUT) --group build --output-file requirements/build.lock
	$(CUT) $(ARGS) --output-file benchmarks/requirements.lock benchmarks/requirements.in
	$(CUT) $(ARGS) --output-file deploy/audit/requirements.lock deploy/audit/requirements.in
	rm -rf .venv-lock

clean:  ## Remove everything that make made
	rm -rf .venv .venv-newest .venv-lock $(AUDIT) .faults.jsonl .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
