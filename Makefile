# Everything a developer runs. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some machines set it. Then each of the many processes of a test compiles all sources again: a CPU second for every service.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := sdk/python/colonies servicekit services deploy tools tests bench examples

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

# What running needs. A stamp records it, so that the second time costs nothing.
$(VENV)/.server: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Python 3.11 to 3.13 is needed; set PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -m venv --help >/dev/null 2>&1 || { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[server]'
	@touch $@

# What a browser is driven with; the browser itself comes from the system, and is looked for first.
$(VENV)/.browser: $(VENV)/.server
	$(BIN)/pip install --quiet --editable '.[server,browser]'
	@touch $@

# What developing needs on top.
$(VENV)/.dev: $(VENV)/.server
	$(BIN)/pip install --quiet --editable '.[server,dev]'
	@touch $@

# One tool, pinned exactly, as its own parts are: a lock file would add nothing.
node_modules/.stamp: package.json
	npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

sdk/web/node_modules/.stamp: sdk/web/package.json
	npm --prefix sdk/web install --silent --no-audit --no-fund --no-package-lock
	@touch $@

.PHONY: setup
setup: $(VENV)/.dev ## Make the virtual environment with everything in it

.PHONY: demo
demo: $(VENV)/.server ## Run the paper's example on a local stack and print its four tables
	@$(BIN)/colonies demo

.PHONY: up
up: $(VENV)/.server ## Start the local stack: Postgres, valkey, four services, the gateway, the front door
	@$(BIN)/colonies up

.PHONY: down
down: $(VENV)/.server ## Stop the local stack; its data stays
	@$(BIN)/colonies down

.PHONY: status
status: $(VENV)/.server ## Show what runs
	@$(BIN)/colonies status

.PHONY: test
test: $(VENV)/.dev ## Run the tests, two at a time: real Postgres, valkey and Envoy, under ten minutes on two cores
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not fault and not model and not fuzz and not browser and not alone' $(addprefix --ignore tests/,browser conformance local)
	$(BIN)/python -m pytest -q -m alone

.PHONY: test-local
test-local: $(VENV)/.dev ## Bring the local stack up and down, kill its parts, and renew its certificates
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not alone' tests/local

.PHONY: test-browser
test-browser: $(VENV)/.dev ## Run the executor and the page of browsers in a real one
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not fault' tests/browser
	$(BIN)/python -m pytest -q -m browser tests/acceptance

.PHONY: test-fault
test-fault: $(VENV)/.dev ## Run the long tests that kill, pause and cut real processes
	$(BIN)/python -m pytest -q -m fault

.PHONY: test-crons
test-crons: $(VENV)/.dev ## A thousand crons every second for five minutes, a replica killed every 20 s, valkey once
	COLONIES_TEST_CRONS=1000 COLONIES_TEST_CRON_SECONDS=300 COLONIES_TEST_KILL_SECONDS=20 $(BIN)/python -m pytest -q -s tests/fault/test_crons.py

.PHONY: test-generators
test-generators: $(VENV)/.dev ## A hundred thousand arguments into a generator, a replica killed every 20 s, valkey and Postgres once
	COLONIES_TEST_ARGUMENTS=100000 COLONIES_TEST_PACK_SECONDS=120 COLONIES_TEST_KILL_SECONDS=20 $(BIN)/python -m pytest -q -s tests/fault/test_generators.py

.PHONY: test-streams
test-streams: $(VENV)/.dev ## Five hundred streams of browsers, and as many of JSON lines, for five minutes each, woken every ten seconds
	COLONIES_TEST_STREAMS=500 COLONIES_TEST_STREAM_SECONDS=300 $(BIN)/python -m pytest -q -s tests/fault/test_gateway_streams.py

.PHONY: test-audit
test-audit: $(VENV)/.dev ## Export a thousand workflows of running services, and find a thousand edits of that file
	COLONIES_TEST_WORKFLOWS=1000 $(BIN)/python -m pytest -q -s -k 'many_workflows or edit' tests/rpc/test_scheduler_audit.py tests/audit/test_edits.py

.PHONY: test-model
test-model: $(VENV)/.dev ## Run ten thousand random steps of the scheduler against its model
	$(BIN)/python -m pytest -q -m model

.PHONY: test-fuzz
test-fuzz: $(VENV)/.dev ## Send ten thousand requests of raw bytes to each method
	$(BIN)/python -m pytest -q -m fuzz

.PHONY: demo-browser
demo-browser: ## The same with its last function in a real browser, headless Chromium (apt-get install chromium libatomic1)
	@for each in "$$COLONIES_CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v "$$each" >/dev/null && exit; \
	done; echo "no Chromium is installed here: apt-get install chromium libatomic1, or set COLONIES_CHROMIUM to where it is" >&2; exit 1
	@$(MAKE) --no-print-directory $(VENV)/.browser
	@$(BIN)/colonies demo --browser

.PHONY: conformance
conformance: $(VENV)/.dev ## Hold all SDKs to one set of cases, the scheduler and the gateway killed in their middle (see CONTRIBUTING.md)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/conformance
	$(BIN)/python -m tests.conformance.kit

.PHONY: test-sdks
test-sdks: $(VENV)/.dev ## Build the SDKs and run their own tests
	tests/conformance/drivers/node/build && npm --prefix sdk/node test
	sdk/go/make.sh && sdk/go/make.sh test
	sdk/cpp/make.sh && sdk/cpp/build/unit
	sdk/ruby/make.sh && ruby sdk/ruby/test/all.rb

.PHONY: vectors
vectors: $(VENV)/.dev ## Hold the signing code of every language against the vectors (needs node, ruby, go and a C++ compiler)
	@$(BIN)/python -m tests.conformance.signatures.conformance

.PHONY: lint
lint: $(VENV)/.dev node_modules/.stamp sdk/web/node_modules/.stamp ## Ruff, strict mypy, import-linter, buf, drift of what is generated
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	npx --no-install buf lint
	npx --no-install buf breaking --against protos/baseline.binpb
	$(BIN)/python tools/gen.py --check
	$(BIN)/python -m deploy.envoy.render --check
	node sdk/web/build.mjs --check

.PHONY: scan
scan: $(VENV)/.dev ## Look for secrets in the sources, and for advisories against what they depend on
	$(BIN)/python -m tools.scan_secrets
	$(BIN)/python -m tools.audit_deps

.PHONY: verify
verify: lint scan test ## Everything that must be green before a change lands

.PHONY: gen
gen: $(VENV)/.dev sdk/web/node_modules/.stamp ## Generate the Python stubs, the API reference, the front door's compose file, the browser's bundle
	$(BIN)/python tools/gen.py
	$(BIN)/python -m deploy.envoy.render
	node sdk/web/build.mjs

.PHONY: format
format: $(VENV)/.dev ## Format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: baseline
baseline: node_modules/.stamp ## At a release: record the protos that later ones must not break
	npx --no-install buf build --exclude-source-info -o protos/baseline.binpb

.PHONY: bench
bench: $(VENV)/.dev ## Measure, with the machine's limits in the same run
	$(BIN)/python -m bench

.PHONY: dist
dist: $(VENV)/.dev ## Build the wheel and the source distribution
	$(BIN)/python -m build --outdir dist

.PHONY: clean
clean: ## Delete everything that was made here, but not the data of the local stack
	rm -rf $(VENV) node_modules sdk/*/build sdk/*/node_modules dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
