# The commands of Tocsin. `make` alone lists them.
# PYTHON=<path> picks the interpreter, TOCSIN_PORT and TOCSIN_HOME place a second stack, TARGET=localstack another platform.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help environments lock up down status demo test test-fast test-stack check bench bench-quality bench-decisions bench-redaction \
	ma-validate-quiet ma-status notebooks-plan validate-local promote-local clean

supported = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(supported)' >/dev/null 2>&1 && { echo "$$p"; exit; }; done; echo python3)

VENV := .local/venv/bin/python
export TARGET TOCSIN_HOME TOCSIN_PORT
export PYTHONPATH := shared:.
export POWERTOOLS_TRACE_DISABLED := true

help:
	@echo "tocsin: events in, explained incidents out"
	@echo
	@echo "  make demo    start everything, send real sample events, show the incidents they became"
	@echo "  make up      start and deploy the embedded cloud; leaves .local/tocsin.json"
	@echo "  make down    stop it politely (its state is kept)"
	@echo "  make test    every test, the ones that need a deployed stack included"
	@echo "  make check   lint, types, import rules, template, generated files"
	@echo "  make bench   measure"
	@echo "  make bench-quality   how good the judgement is, on labelled data beside the project (../shared)"
	@echo "  make bench-redaction what redaction finds, misses and takes by mistake, and how fast"
	@echo "  make bench-decisions decisions/s, certificates and hot swap beside LiteLLM's router and Cedar"
	@echo
	@echo "  make ma-status       the invariants of decisions and their status"
	@echo "  make notebooks-plan  which notebook cell verifies which lemma"
	@echo "  make ma-validate-quiet   prove, weaken and run it all anew; say only what is wrong (part of make check)"
	@echo "  make validate-local  the same, the tests that invariants name, and other Pythons"
	@echo "  make promote-local   write scorecard and generated files, if validate-local was green"
	@echo
	@echo "  make clean   stop, and forget all state (environments stay)"

environments:
	@"$(PYTHON)" -c '$(supported)' 2>/dev/null || { echo "tocsin: $$("$(PYTHON)" -V 2>&1) will not do:" \
		"install Python 3.11, 3.12 or 3.13, or use make PYTHON=<path of one>" >&2; exit 1; }
	@"$(PYTHON)" tools/local/environments.py

# Resolve requirements/*.in anew. The locks hold hashes and no addresses.
lock: environments
	@for name in uv runtime analysis dev emulator bench clients langfuse2; do .local/uv/bin/uv pip compile --quiet --universal --generate-hashes --upgrade \
		--python-version 3.11 --no-emit-index-url --no-annotate --no-header \
		requirements/$$name.in --output-file requirements/$$name.txt || exit 1; done

up: environments
	@$(VENV) -m tools.local up

down:
	@if [ -x $(VENV) ]; then $(VENV) -m tools.local down; fi

status: environments
	@$(VENV) -m tools.local status

demo: up
	@$(VENV) -m tools.demo

# Side by side: the tests on a stack wait most of the time.
test: environments
	@$(MAKE) --no-print-directory -j2 test-fast test-stack

test-fast: environments
	@$(VENV) -m pytest -n 2 tests/rooms tests/functions tests/contracts \
		--cov=shared/tocsin --cov-report=term:skip-covered --cov-fail-under=85

test-stack: environments
	@$(VENV) -m tools.local stack-tests

check: environments
	@$(VENV) -m ruff check --quiet . && echo "  lint          ok"
	@$(VENV) -m ruff format --quiet --check . && echo "  format        ok"
	@$(VENV) -m mypy --no-error-summary && echo "  types         ok"
	@.local/venv/bin/lint-imports --no-cache >.local/imports.log 2>&1 || { cat .local/imports.log; exit 1; }; echo "  import rules  ok"
	@.local/venv/bin/cfn-lint template.yaml && echo "  template      ok"
	@for tool in tools/event_schema.py tools/contract_schema.py tools/openapi.py tools/connectors.py; do $(VENV) $$tool --check || exit 1; done && echo "  generated     ok"
	@$(VENV) -m tools.mathematics validate --quiet && echo "  mathematics   ok"

bench: up
	@$(VENV) -m bench

# Needs no stack, but ../shared (or TOCSIN_SHARED) with the labelled data.
bench-quality: environments
	@$(VENV) -m bench.quality

# LiteLLM and Cedar live in an environment of their own (requirements/bench.txt).
bench-decisions: environments
	@"$(PYTHON)" tools/local/environments.py bench
	@.local/bench/bin/python -m bench decisions

ma-validate-quiet: environments
	@$(VENV) -m tools.mathematics validate --quiet

ma-status: environments
	@$(VENV) -m tools.mathematics status

notebooks-plan: environments
	@$(VENV) -m tools.mathematics plan

validate-local: environments
	@$(VENV) -m tools.mathematics validate-local

promote-local: environments
	@$(VENV) -m tools.mathematics promote-local

# Recall, precision and speed of redaction; real log lines when ../shared (or TOCSIN_SHARED) has them.
bench-redaction: environments
	@$(VENV) -m bench.redaction_bench --loghub "$${TOCSIN_SHARED:-../shared}/data/loghub"

clean: down
	@rm -rf .local/emulator .local/emulator.* .local/tocsin.json .local/test .local/build .local/node-stamp
