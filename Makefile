SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
MINUTES ?= 5
# 0: another one each time; it is printed, and can be given again.
SEED ?= 0
# More than a small machine has cores: the tests wait for servers most of the time.
WORKERS ?= 4
BIN := .venv/bin
INSTALLED := .venv/.installed
RIVALS := .benchmark-venv/.installed
QUICK := $(addprefix fetch_mask_assets_tests/,masking keys audit pipeline operations support \
  test_settings.py test_errors.py)
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --no-loadscope-reorder
# Without bytecode, each process that a test starts would compile the product anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run quick test test-browser test-long dev lint check readme docs benchmark benchmark-growth benchmark-docs benchmark-md5 pictures load chaos chaos-model fuzz lock stop clean

help: ## Show what there is to make.
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/^([a-z0-9-]+):.*## /\1|/' | column -t -s '|'

setup: $(INSTALLED) ## Make the virtual environment with the locked packages.

$(INSTALLED): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## Start the local stack and take sample messages from queue to table.
	@$(BIN)/fetch-mask local up
	@$(BIN)/fetch-mask local samples | $(BIN)/fetch-mask send -
	@$(BIN)/fetch-mask ingest
	@$(BIN)/fetch-mask show
	@echo
	@echo "Look further:  make dev  (the Dagster UI, with traffic)"
	@echo "Stop it:       make stop"

quick: setup ## Run the tests that need no servers, in seconds.
	@$(PYTEST) --numprocesses 2 -m "not servers" $(QUICK)

test: setup ## Run the tests, but for the browser and for every fault there is.
	@$(PYTEST)

test-browser: setup ## Run the tests that open pages in a real browser.
	@$(PYTEST) --numprocesses 2 -m browser

test-long: setup ## Run the tests that `make test` leaves out: the browser, and every fault.
	@$(PYTEST) --numprocesses 2 -m "browser or chaos or long"

dev: setup ## Start the local stack and the Dagster UI, with traffic; Ctrl-C stops all of it.
	@exec $(BIN)/fetch-mask local dev

stop: setup ## Stop the local stack; its data stays.
	@$(BIN)/fetch-mask local down

lint: setup ## Check style, format, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/sqlfluff lint fetch_mask_assets/postgres/schema
	$(BIN)/mypy
	$(BIN)/lint-imports

readme: setup ## Run every command that the README and the tutorial show.
	$(BIN)/python .ci/run_shown_commands.py README.md docs/tutorial.md

docs: setup ## Build the documentation site into build/site.
	@$(BIN)/fetch-mask local up > /dev/null
	@set -a; . ./.env; NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean

check: lint docs run readme test test-long ## What CI runs: all of it, every fault too.

chaos: setup ## Break it: every fault once, or for MINUTES; SEED repeats; without ONLY writes docs/faults.md.
	@echo "Faults one by one; make chaos-model brings them in random order, for long."
	@rm -f .chaos-results.jsonl
	@$(BIN)/python -u -m fetch_mask_assets_tests.chaos.campaign --results .chaos-results.jsonl \
	  $(if $(filter-out file,$(origin SEED)),--seed $(SEED)) \
	  $(if $(filter-out file,$(origin MINUTES)),--minutes $(MINUTES)) --only '$(ONLY)' \
	  && failed=0 || failed=$$?; \
	if [ -e .chaos-results.jsonl ]; then \
	  $(BIN)/python -m fetch_mask_assets_tests.chaos.report .chaos-results.jsonl; \
	fi; exit $$failed

chaos-model: setup ## Break it in random order, at length; a failure prints how to repeat it.
	@HYPOTHESIS_PROFILE=long $(BIN)/pytest fetch_mask_assets_tests/chaos/test_model.py -q

benchmark: $(RIVALS) ## Measure each stage beside other ways to do it; ONLY, PROFILE: one stage.
	@mkdir -p build
	@$(BIN)/fetch-mask local up > /dev/null
	@set -a; . ./.env; $(BIN)/python -m benchmarks --json build/benchmark.json \
	  $(addprefix --only=,$(ONLY)) $(addprefix --profile=,$(PROFILE))

benchmark-growth: setup ## Measure the cost of a message as batches, ledger, table and runs grow.
	@mkdir -p build
	@$(BIN)/fetch-mask local up > /dev/null
	@set -a; . ./.env; $(BIN)/python -m benchmarks.growth --json build/growth.json \
	  $(addprefix --only=,$(ONLY))

benchmark-docs: $(RIVALS) ## Measure all of it, and write the tables and plots of docs/performance.md.
	@mkdir -p build
	@$(BIN)/fetch-mask local up > /dev/null
	@set -a; . ./.env; $(BIN)/python -m benchmarks --json build/benchmark.json --write-docs
	@$(BIN)/python -m benchmarks.on_paper build/benchmark.json --write-docs
	@set -a; . ./.env; $(BIN)/python -m benchmarks.growth --json build/growth.json --write-docs

$(RIVALS): $(INSTALLED) benchmarks/rivals/requirements.txt
	$(PYTHON) -m venv .benchmark-venv
	.benchmark-venv/bin/python -m pip install --quiet --no-deps --require-hashes \
	  -r benchmarks/rivals/requirements.txt
	@touch $@

benchmark-md5: setup ## Upgrade a table of a million MD5 digests of each field, and verify every token.
	@$(BIN)/fetch-mask local up > /dev/null
	@set -a; . ./.env; $(BIN)/python -m benchmarks.md5_upgrade

pictures: setup ## Take the pictures of the documentation from the running product.
	@$(BIN)/fetch-mask local up > /dev/null
	@$(BIN)/fetch-mask local samples --count 400 | $(BIN)/fetch-mask send -
	@$(BIN)/fetch-mask ingest
	@set -a; . ./.env; PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python .ci/take_pictures.py

load: setup ## Drain a backlog of 200,000 messages with the sensor in charge; count runs and memory.
	@$(BIN)/python -m benchmarks.load
	@$(BIN)/python -m benchmarks.load --one-process

fuzz: setup ## Try random input on every parser for MINUTES (Linux only); SEED repeats a run.
	@mkdir -p .fuzz/corpus
	@$(BIN)/python -m fetch_mask_assets_tests.fuzz .fuzz/corpus -artifact_prefix=.fuzz/ \
	  -seed=$(SEED) -max_len=4096 -timeout=10 -rss_limit_mb=2048 -max_total_time=$$(( $(MINUTES) * 60 ))

lock: setup ## Lock the newest allowed packages, with hashes.
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-strip-extras --no-header pyproject.toml --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-strip-extras --no-header --extra local --extra dev --constraint requirements.txt \
	  pyproject.toml --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-strip-extras --no-header benchmarks/rivals/requirements.in \
	  --output-file benchmarks/rivals/requirements.txt

clean: ## Remove the local stack with its data, and the virtual environment.
	@if [ -x $(BIN)/fetch-mask ]; then $(BIN)/fetch-mask local down --delete; fi
	rm -rf .venv .benchmark-venv
