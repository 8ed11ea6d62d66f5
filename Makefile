# CryptoPulse. `make help` lists every task; `make run` and `make test` install whatever is missing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
SERVICES := ingestor indicators alerts portfolio gateway
PACKAGES := libs/common $(addprefix services/,$(SERVICES))
# A stamp that names this very folder: a virtual environment that was copied along with a checkout is of no use.
STAMP := .venv/.installed-$(shell pwd -P | cksum | cut -d' ' -f1)
BENCH_STAMP := $(subst .venv/,.venv-bench/,$(STAMP))
# Runs a command with the settings of .env; what is set in the environment already wins.
WITH_ENV := $(PY) -m tools.local_stack env --
PYTEST := $(WITH_ENV) $(PY) -m pytest -q
tests_of = $(wildcard libs/*/tests/$(1) services/*/tests/$(1) tools/*/tests/$(1) tests/$(1))
LOCK_FLAGS := --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url \
	--no-emit-find-links --no-emit-package cryptopulse-common
# A test on real servers that fails is run once more, and the summary names it: a machine may be busy, a defect fails twice.
RERUN := --reruns 1 --reruns-delay 2 -rR
# Integration tests mostly wait for servers, so more of them run at once than there are cores.
WORKERS ?= 4
# Taken in this order, JOBS at a time: what computes stands beside what waits for servers and processes. Then those that run several
# processes of their own, each alone.
STEPS ?= lint unit deploy-check contract architecture deploy image-native faults-quick bench-quick integration e2e
ALONE ?= integration,e2e
JOBS ?= 2

##@ Daily

help: ## list every task
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9_-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

run: venv system ## run the whole system here: FEED=auto|live|sim, PORT=8000, SYMBOLS=BTC-USD,...
	@exec $(PY) -m tools.local_stack run --tied

test: venv system ## all that CI runs, on real servers: STEPS="lint unit" picks, JOBS=1 runs one after the other
	@exec $(PY) -m tools.local_stack exec --tied -- $(PY) -m tools.steps --jobs $(JOBS) --alone $(ALONE) $(STEPS)

fmt: venv ## format the code and mend what ruff can mend
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

lint: venv ## ruff, formatting, mypy strict, the five floors
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet . || { .venv/bin/ruff format --check .; exit 1; }
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

##@ Tests (ARGS="-k name -x" goes to pytest)

unit: venv ## milliseconds each, no network
	@$(PYTEST) -n 2 --dist loadfile $(call tests_of,unit) $(ARGS)

contract: venv ## golden messages, published schemas, parsers
	@$(PYTEST) $(call tests_of,contract) $(ARGS)

architecture: venv ## the floors bite, the house rules hold
	@$(PYTEST) $(call tests_of,architecture) $(ARGS)

deploy: venv ## compose, ECS templates with planted mistakes, rules and dashboards, offline
	@$(PYTEST) $(call tests_of,deploy) $(ARGS)

deploy-check: venv ## hadolint, cfn-lint, checkov, compose schema, moto, promtool: in an environment of their own
	@deploy/checks/run

images-native: venv system ## what each image would hold, started without Docker; make up where an engine answers: minutes
	@exec $(PY) -m tools.local_stack exec --tied -- $(PY) -m pytest -q -s $(call tests_of,images) $(ARGS)

image-native: venv system ## the same for one image: SERVICE=alerts
	@exec $(PY) -m tools.local_stack exec --tied -- $(PY) -m pytest -q -s tests/images/test_native_images.py \
		-k "recipe or $(or $(SERVICE),alerts)" $(ARGS)

integration: venv ## on real RabbitMQ, Redis and Postgres
	@$(PYTEST) -n $(WORKERS) --dist worksteal --durations=20 $(RERUN) $(call tests_of,integration) $(ARGS)

# A file stays on one worker: two runs of `make run` at once would want the same ports of the services.
e2e: venv ## the five services as processes, a frame in and a message out
	@$(PYTEST) -n 2 --dist loadfile $(RERUN) --durations=20 $(call tests_of,e2e) $(ARGS)

# CASE is a marker: quick planted alerts broker consumer gate ingest owners postgres redis rolling shutdown soak.
faults: venv system ## the fault catalogue: each fault, its invariant, its figures; CASE=alerts picks, also ingest rolling ...
	@exec $(PY) -m tools.local_stack exec --tied -- $(PY) -m pytest -q $(call tests_of,faults) -m "$(or $(CASE),not soak)" $(ARGS)

faults-quick: ## the part of the faults that `make test` runs
	@$(MAKE) faults CASE=quick ARGS="$(RERUN) --durations=5 $(ARGS)"

soak: ## half an hour of load with a random fault each minute: MINUTES=30, RATE=2000 ticks/s
	@CRYPTOPULSE_SOAK_MINUTES=$(or $(MINUTES),30) CRYPTOPULSE_SOAK_RATE=$(or $(RATE),2000) $(MAKE) faults CASE=soak

fuzz: venv ## venues, clients and files nearly right, into every parser: SECONDS=10 for each of some 60 subjects, ARGS="-k kraken"
	@CRYPTOPULSE_FUZZ_SECONDS=$(or $(SECONDS),10) CRYPTOPULSE_FUZZ_EXAMPLES=$(or $(EXAMPLES),200) \
		$(PYTEST) -n 2 $(wildcard tests/unit/test_fuzz_*.py) $(ARGS)

readme: ## the commands of README.md on a clean clone, with the time to the first price
	@$(MAKE) venv
	@$(PYTEST) -s $(call tests_of,readme) $(ARGS)

coverage: venv ## what the unit and contract tests reach
	@mkdir -p .run && $(WITH_ENV) $(PY) -m coverage run -m pytest -q $(call tests_of,unit) $(call tests_of,contract) $(ARGS)
	@$(PY) -m coverage combine -q && $(PY) -m coverage report

BENCH := $(PY) -m tools.local_stack exec --tied -- .venv-bench/bin/python -m tools.bench

bench: $(BENCH_STAMP) system ## the benchmarks beside their yardsticks: CASE=route picks one, ARGS=--page writes docs/benchmarks.md
	@exec $(BENCH) $(CASE) $(ARGS)

bench-quick: $(BENCH_STAMP) system ## the benchmarks once with small sizes: that they run, not what they show
	@BENCH_QUICK=1 exec $(BENCH) $(CASE) $(ARGS)

##@ Upkeep

venv: $(STAMP) ## install requirements.lock and the packages (a no-op when nothing changed)

$(STAMP): requirements.lock scripts/venv $(addsuffix /pyproject.toml,$(PACKAGES))
	@scripts/venv $@ $(PACKAGES)

$(BENCH_STAMP): $(STAMP) requirements.lock tools/bench/requirements.lock scripts/bench_venv
	@scripts/bench_venv $@

system: venv ## install the servers that are missing, where apt and root allow it
	@$(PY) -m tools.local_stack system

lock: venv ## resolve again: requirements.lock, then one per service as a part of it
	@.venv/bin/uv pip compile $(LOCK_FLAGS) requirements.in $(addsuffix /pyproject.toml,$(PACKAGES)) -o requirements.lock
	@for service in $(SERVICES); do \
		.venv/bin/uv pip compile $(LOCK_FLAGS) -c requirements.lock libs/common/pyproject.toml \
			services/$$service/pyproject.toml -o services/$$service/requirements.lock; \
	done

docs: venv ## write docs/asyncapi.json, docs/openapi.json and .env.example anew
	@$(PY) -m tools.local_stack example
	@$(PY) -m tools.docs
	@$(PY) -m tools.docs.compose

clean: venv ## remove what tests and runs left; data of `make run` included
	@[ ! -d .run ] || $(PY) -m tools.local_stack clean
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

##@ Containers

COMPOSE = docker compose --env-file .env $(if $(filter sim,$(FEED)),--env-file deploy/compose/sim.env --profile sim) \
	$(addprefix --profile ,$(PROFILES))

up: ## build and start everything with Docker Compose until healthy: FEED=sim, PROFILES="observability tools"
	@scripts/compose-secrets
	@$(COMPOSE) up --build --detach --wait $(ARGS)

down: ## stop the containers, keep the data
	@docker compose --profile '*' down

logs: ## follow the containers' logs
	@docker compose logs --follow --tail 100

.PHONY: help run test fmt lint unit contract architecture deploy deploy-check images-native image-native integration e2e faults fuzz readme coverage bench bench-quick faults-quick soak venv system \
	lock docs clean up down logs
