# Everything below sets itself up: it needs Python 3.11 or later, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# pip takes minutes for what this takes seconds for, the more so while something else runs.
UV := $(BIN)/uv pip install --quiet --system-certs

.DEFAULT_GOAL := help

help:  ## Show these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt uv
	$(UV) --constraint .ci/constraints.txt --python $(BIN)/python --editable '.[dev]'
	@touch $(READY)

setup: $(READY)  ## Make the virtual environment, with exact versions

# Registries that no one here wrote, each in an environment of its own, beside its official client.
PACKAGES_mlflow := mlflow
PACKAGES_phoenix := arize-phoenix arize-phoenix-client
SERVERS := .venv-mlflow .venv-phoenix

$(SERVERS:=/ready): .venv-%/ready: .ci/%.txt | $(READY)
	$(PYTHON) -m venv --without-pip .venv-$*
	$(UV) --constraint $< --python .venv-$*/bin/python $(PACKAGES_$*)
	@touch $@

# What runs files that are written for promptfoo. Its database is one more package on each platform.
PLATFORM := process.platform + "-" + process.arch + (process.platform == "linux" ? "-gnu" : "")

.npm-promptfoo/ready: .ci/promptfoo.txt
	npm install --prefix .npm-promptfoo --no-save --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
		$$(grep -v '^#' $< | sed "s/PLATFORM/$$(node -p '$(PLATFORM)')/")
	@touch $@

servers: $(SERVERS:=/ready) .npm-promptfoo/ready  ## Make the environments of MLflow, Phoenix and promptfoo, with exact versions

demo: $(READY)  ## Replicate 200 prompts on the embedded sandbox; again: nothing to do
	$(BIN)/promptferry run configs/sandbox.yaml --yes

lint: $(READY)  ## Style and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

PYTEST := -m pytest -q -rs --numprocesses 2 --dist worksteal

test: lint types  ## Lint, types, and every test
	$(BIN)/python $(PYTEST)

coverage: $(READY)  ## Branch coverage of every test, which makes them take twice as long
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-real: $(READY)  ## The tests on real MLflow and Phoenix servers and on promptfoo, which this installs (node 20.20) and starts
	$(MAKE) --jobs 2 servers
	$(BIN)/python -m pytest -q -rsP -m real --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/real

chaos: $(READY)  ## The long campaign: kills, faults, full disks; prints a table (an hour)
	$(BIN)/python -m tests.chaos

bench: $(READY)  ## What a prompt costs, beside other ways to move it (ten minutes, an idle machine)
	$(BIN)/python -m tests.benchmarks

picture: $(READY)  ## Draw the README's picture of the terminal anew
	$(BIN)/python -m tests.picture

pages: $(READY)  ## Write what the READMEs take from the code anew
	$(BIN)/python -m tests.pages

clean:  ## Remove what these targets made, but for ledgers
	rm -rf $(VENV) $(SERVERS) .npm-promptfoo .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build *.egg-info

.PHONY: help setup servers demo lint types test coverage test-real chaos bench picture pages clean
