# Each target installs what it needs. `make` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
TEMPLATE := {{cookiecutter.project_slug}}

# The first Python on the path that is new enough.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

# Show all output of a command that fails. With -qq, pip would not say that its index does not respond.
OR_SHOW = >$(VENV)/log.txt 2>&1 || { cat $(VENV)/log.txt >&2; exit 1; }

# npm prints only its errors.
NPM := --no-audit --no-fund --loglevel=error

FRAMEWORK ?= flask
PORT ?= 3000
LOGTO_PORT ?= 3001
DEMO := build/demo/$(FRAMEWORK)
BENCH := build/benchmarks

.DEFAULT_GOAL := help
.PHONY: help bench demo test test-backstage test-newest test-windows workshop pictures check clean python programs

help:  ## list all targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.baking  ## bake and run a project with the default answers: FRAMEWORK=quart PORT=3000 LOGTO_PORT=3001
	@$(BIN)/python tools/free_ports.py PORT=$(PORT) LOGTO_PORT=$(LOGTO_PORT)
	@rm -rf $(DEMO)/bookstore && mkdir -p $(DEMO)
	@$(BIN)/cookiecutter . --no-input --output-dir $(DEMO) framework=$(FRAMEWORK) \
		callback_url=http://localhost:$(PORT)/callback \
		logto_endpoint=http://localhost:$(LOGTO_PORT) >$(DEMO)/bake.log || { cat $(DEMO)/bake.log; exit 1; }
	@cmp -s $(DEMO)/bookstore/pyproject.toml $(DEMO)/installed.toml || { \
		echo "Installing the packages of the demo. The first time, this takes about a minute ..." && cd $(DEMO) && \
		if command -v uv >/dev/null; then \
			uv venv -q --clear --python $(abspath $(BIN))/python venv && cd bookstore && \
			VIRTUAL_ENV=../venv uv pip install -q -e . --group dev; \
		else \
			$(abspath $(BIN))/python -m venv --clear venv && cd bookstore && \
			../venv/bin/python -m pip install -q --upgrade pip && \
			../venv/bin/python -m pip install -q -e . --group dev; \
		fi && cp pyproject.toml ../installed.toml; }
	@echo "The project is in $(DEMO)/bookstore. The next 'make demo' replaces the project."
	@cd $(DEMO)/bookstore && exec ../venv/bin/python -m dev --port $(PORT) --logto-port $(LOGTO_PORT)

test: programs $(VENV)/.testing tests/node/node_modules/.ready tests/catalog/node_modules/.ready  ## run all tests, or some: ARGS="-k name"
	@$(BIN)/python -m pytest $(ARGS)

test-backstage: $(VENV)/.testing tests/catalog/engine/node_modules/.ready  ## test both Backstage templates in the newest engine of Backstage, which is a large download
	@$(BIN)/python -m pytest tests/catalog/with_the_engine.py $(ARGS)

test-newest: python  ## test the projects with Debian's newest Python and the newest packages; NEWEST=python3.14 for another Python
	@test -n "$(NEWEST)" -o "$$(id -u)" != 0 || .ci/system-packages $(PYTHON) debootstrap
	@PYTHONPATH=tests $(PYTHON) tools/newest_python.py $(if $(NEWEST),--python $(NEWEST))

test-windows: $(VENV)/.testing  ## test the projects with the Python of Windows, in Wine: needs root, ten minutes or more, 3 GB
	@test "$$(id -u)" != 0 || .ci/system-packages $(PYTHON) debootstrap
	@PYTHONPATH=tests $(BIN)/python tools/windows.py

workshop: $(VENV)/.testing  ## put all files for a workshop without a network into build/workshop
	@$(BIN)/python tools/workshop_kit.py $(ARGS)

bench: python $(VENV)/.testing $(BENCH)/packages/.ready  ## run the benchmarks (a quarter of an hour), or some: ARGS="home growth"
	@.ci/system-packages $(PYTHON) redis wrk
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

pictures: programs $(VENV)/.testing tests/node/node_modules/.ready  ## create docs/images from the pages in a browser
	@$(BIN)/python -m pytest -n0 tests/app/test_browser.py -k "flask and every_page"
	@mkdir -p docs/images && for page in home signed-in profile; do for scheme in light dark; do \
		cp build/screenshots/flask-$$page-$$scheme-wide.png docs/images/$$page-$$scheme.png; done; done

check: $(VENV)/.testing  ## check lint, format and types of the Python files of the template
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { $(BIN)/ruff format --diff --quiet; exit 1; }
	@$(BIN)/mypy --no-error-summary $(wildcard hooks tests tools benchmarks)

clean:  ## remove all files that make has created
	rm -rf $(VENV) build tests/node/node_modules tests/catalog/node_modules \
		tests/catalog/engine/node_modules .pytest_cache .ruff_cache

python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install Python, or run: make PYTHON=/path/to/python"; exit 1; }
	@.ci/system-packages $(PYTHON) venv

# This comes before the other prerequisites, so that all programs are installed at once.
programs:
	@test -z "$(PYTHON)" || .ci/system-packages $(PYTHON) venv browser redis

# These packages are not in the environment of the tests, which has only what the bakes need.
$(BENCH)/packages/.ready: pyproject.toml | $(VENV)/.testing
	@rm -rf $(@D)
	@$(BIN)/python -m pip install -q --no-deps --target $(@D) --group bench $(OR_SHOW)
	@touch $@

$(VENV)/.baking: pyproject.toml | python
	@echo "Setting up $(VENV). The first time, this takes about half a minute ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade 'pip>=25.1' $(OR_SHOW)
	@$(BIN)/python -m pip install -q --group bake $(OR_SHOW)
	@touch $@

$(VENV)/.testing: $(VENV)/.baking cookiecutter.json $(TEMPLATE)/pyproject.toml tests/requirements.py
	@$(BIN)/python tests/requirements.py >$(VENV)/requirements.txt
	@$(BIN)/python -m pip install -q --group test -r $(VENV)/requirements.txt $(OR_SHOW)
	@touch $@

tests/node/node_modules/.ready tests/catalog/node_modules/.ready: \
		tests/%/node_modules/.ready: tests/%/package-lock.json | $(VENV)/.testing
	@cd tests/$* && if PATH="$(abspath $(BIN)):$$PATH" npm ci $(NPM) >/dev/null; then touch node_modules/.ready; \
		elif [ "$$CI" = true ]; then exit 1; \
		else echo "npm could not install the packages of tests/$*: tests that need them are left out."; fi

tests/catalog/engine/node_modules/.ready: tests/catalog/engine/package.json | $(VENV)/.testing
	@echo "Installing Backstage's engine (300 MB). This happens only once ..."
	@cd $(<D) && PATH="$(abspath $(BIN)):$$PATH" npm install $(NPM) >/dev/null
	@touch $@
