# The only interface: what passes here passes everywhere.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up down test test-truth test-boards test-faults lint format docs render bench lock \
    secrets environments chromium mariadb

DEV := .venv/dev/bin
export PATH := $(CURDIR)/$(DEV):$(PATH)
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV

help: ## This list.
	@awk -F':.*## ' '/^[a-z.-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Install what is missing, start everything, load the sample, print addresses and logins.
	@./callhouse up

down: ## Stop everything that `make up` started. Data stays.
	@./callhouse down

# Processes that test side by side. In the order of the folders: the running product comes first.
WORKERS ?= 2

test: environments chromium mariadb ## All tests but the benchmarks.
	$(DEV)/python -m pytest tests --ignore=tests/bench \
	    --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)

# Each line simulates a centre, clean and dirty, and compares what is published with its truth.
test-truth: environments ## 50,000 calls of each vendor format against their truth: about half an hour.
	$(DEV)/python -m pytest tests/integration/test_amazon_connect_truth.py --calls-per-day 3000 $(PYTEST)
	$(DEV)/python -m pytest tests/integration/test_asterisk_truth.py --calls-per-day 5600 $(PYTEST)
	$(DEV)/python -m pytest tests/integration/test_asterisk_records.py -k published_marts \
	    --calls-per-day 10200 $(PYTEST)

test-boards: environments chromium ## Each board in each language for people of each kind, and its pictures.
	$(DEV)/python -m pytest tests/e2e/test_every_board.py --every-board $(PYTEST)

# Other faults every time: the seed is in the first lines of what it prints.
test-faults: environments ## The fault suite with 10 random runs, about an hour; SEED=n repeats one.
	$(DEV)/python -m pytest tests/faults -s --timeout 0 --fault-runs 10 \
	    --fault-seed $(or $(SEED),$$RANDOM) $(PYTEST)

lint: environments ## ruff, mypy, sqlfluff, yamllint, shellcheck.
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy
	cd dbt_project && ../$(DEV)/sqlfluff lint models tests
	$(DEV)/yamllint --strict .
	$(DEV)/shellcheck callhouse requirements/install requirements/lock .ci/run

format: environments ## Put Python into the one shape.
	$(DEV)/ruff format .
	$(DEV)/ruff check --fix .

docs: ## Dictionary and metric catalogue from the dbt manifest.
	@./callhouse docs

render: ## Superset datasets from the dbt manifest.
	@./callhouse render

bench: ## Benchmarks, held against saved figures (PYTEST=--save-baseline saves this run's).
	@./callhouse bench $(PYTEST)

secrets: ## .env for the containers: .env.example with generated secrets.
	@[[ ! -e .env ]] || { echo ".env is there already: it is kept" >&2; exit 1; }
	@umask 077; while IFS= read -r line; do \
	    if [[ $$line =~ ^CALLHOUSE_SECRET_[A-Z_]+=$$ ]]; then \
	        line+=$$(head -c 24 /dev/urandom | base64 | tr '+/' '-_'); \
	    fi; \
	    printf '%s\n' "$$line"; \
	done <.env.example >.env

lock: ## Rebuild the lock files in requirements/ from the groups in pyproject.toml.
	@requirements/lock

environments:
	@requirements/install pipeline superset dev postgres

# What tests need of the system: $(1) tells whether it is there, $(2) are Debian's packages. Where it
# cannot be had those tests say so and are skipped.
define system_packages
	@if ! { $(1); } >/dev/null && [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
	    echo "installing $(2) for tests"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2); } \
	        >/dev/null 2>&1 || echo "$(2) could not be installed: those tests are skipped"; \
	fi
endef

# The browser of the end-to-end tests.
chromium:
	$(call system_packages,command -v chromium || command -v chromium-browser,chromium)

# The server of an exchange; the second package holds a part of its installation.
mariadb:
	$(call system_packages,command -v mariadb-install-db && command -v my_print_defaults,mariadb-server-core mariadb-client-core)
