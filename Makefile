# ls-yolo: Label Studio and a YOLO backend on one host. `make help` lists what there is.
# What a target needs done lies in scripts/, where each can be run alone.

PYTHON ?= python3
COMPOSE := $(PYTHON) scripts/compose.py
# Tests see their own tools first, and the docker client that the scripts choose.
TEST_PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin
# What Python compiles is kept, but not beside the sources, which containers mount.
RUN := env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$(CURDIR)/.cache/pycache" PATH="$(TEST_PATH):$$PATH"
# Each suite has a budget, so that what hangs is seen where it hangs.
PYTEST = $(RUN) timeout --kill-after=30 $(BUDGET) pytest
# What opens an encrypted backup.
KEY = $(if $(PASSPHRASE_FILE),--passphrase-file "$(PASSPHRASE_FILE)") $(if $(IDENTITY),--identity "$(IDENTITY)")
# What is asked of a backup, and which release is meant.
ASKED = $(if $(TO),--to "$(TO)") $(if $(DATASETS),--datasets) $(if $(KEEP),--keep $(KEEP)) \
	$(if $(RECIPIENT),--recipient "$(RECIPIENT)") $(if $(PASSPHRASE_FILE),--passphrase-file "$(PASSPHRASE_FILE)")
WHERE = $(if $(NAMESPACE),--namespace "$(NAMESPACE)") $(if $(RELEASE),--release "$(RELEASE)")
PYTHON_FILES := scripts tests backend label-studio charts ansible

# Settings given to make (make up LABEL_STUDIO_PORT=8081) are in the environment of every script.

.DEFAULT_GOAL := help
.PHONY: help up setup apply export prelabel predictions schema prepare images preflight down destroy logs status doctor support password \
	backup backup-verify restore upgrade bundle bundle-push \
	test test-lint test-unit test-integration test-kubernetes test-host test-tools \
	test-integration-setup test-kubernetes-setup test-host-setup test-bare \
	helm-install helm-prelabel helm-backup helm-restore helm-upgrade bench format lock

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  A GPU: make up GPU=1     LAN addresses: make up MACVLAN=1 MACVLAN_PARENT=eth0     PostgreSQL: make up POSTGRES=1"
	@echo "  A setting for one run:  make up LABEL_STUDIO_PORT=8081     To keep it: in .env"

up: ## Install what is missing, build, start, and set up the demo; safe to run again
	@$(PYTHON) scripts/up.py

setup: ## Make the projects again: new images, changed files of projects/
	@$(PYTHON) scripts/up.py setup

apply: ## The same with options: FILE=demo.yaml for one file, ARGS=--diff to see what would change, ARGS=--prune
	@test -t 0 -a -t 1 || set -- -T; \
		$(COMPOSE) run --rm "$$@" setup ls-yolo apply "/projects/$(FILE)" $(ARGS)

export: ## A project of Label Studio as YAML: PROJECT=title or number, FILE=projects/mine.yaml to write it there
	@$(PYTHON) scripts/export_project.py "$(PROJECT)" $(FILE)

prelabel: ## Predict a project in bulk: PROJECT=title or number, ARGS="--dry-run"; docs/prelabel.md
	@test -t 0 -a -t 1 || set -- -T; \
		$(COMPOSE) run --rm --no-deps "$$@" setup ls-yolo prelabel "$(PROJECT)" $(ARGS)

predictions: ## Versions of a project's predictions: PROJECT=title or number; ACTION=rollback or prune, ARGS="--to VERSION"
	@test -t 0 -a -t 1 || set -- -T; \
		$(COMPOSE) run --rm --no-deps "$$@" setup ls-yolo predictions $(or $(ACTION),list) "$(PROJECT)" $(ARGS)

schema: ## The JSON Schema of projects/*.yaml; of models.yaml: OF=models
	@$(COMPOSE) run --rm --no-deps -T setup ls-yolo schema $(OF)

preflight: ## Look at this host: what was found, what is needed; changes nothing
	@$(PYTHON) scripts/preflight.py

images: ## Build the two images; installs a missing engine first
	@$(PYTHON) scripts/up.py prepare

helm-install: ## The same in the Kubernetes cluster of kubectl's context (NAMESPACE=ls-yolo)
	@$(PYTHON) scripts/helm_install.py

helm-prelabel: ## There, predict a whole project by many pods: PROJECT=Wheelhouse SHARDS=4 (safe to stop and run again)
	@$(PYTHON) scripts/helm_prelabel.py

helm-backup: ## There, a backup of a release into a folder here: as make backup, NAMESPACE=ls-yolo, RELEASE=
	@$(PYTHON) scripts/helm_backup.py $(ASKED) $(WHERE)

helm-restore: ## There, a release as a backup has it, also one of Compose: FILE=, FORCE=1 where there are projects
	@$(PYTHON) scripts/helm_restore.py "$(FILE)" $(if $(FORCE),--force) $(if $(TO),--to "$(TO)") $(KEY) $(WHERE)

helm-upgrade: ## There, this version of the chart, and back where it fails: VALUES=FILE, ARGS="--set ..."
	@$(PYTHON) scripts/helm_upgrade.py $(if $(VALUES),--values "$(VALUES)") $(if $(TO),--to "$(TO)") \
		$(if $(PASSPHRASE_FILE),--passphrase-file "$(PASSPHRASE_FILE)") $(WHERE) -- $(ARGS)

status: ## What runs, and whether it is healthy
	@$(COMPOSE) ps --all

doctor: ## What is wrong, and what to do; of one project: PROJECT=ID_OR_TITLE; JSON=1; ARGS="--only labels"
	@$(PYTHON) scripts/doctor.py $(if $(PROJECT),--project "$(PROJECT)") $(if $(JSON),--json) $(ARGS)

support: ## One archive for asking for help, without secrets: TO=DIR; docs/support.md
	@$(PYTHON) scripts/support.py $(if $(TO),--to "$(TO)")

# Ctrl-C is how it ends: no error to the shell (trap), nor to make (130).
logs: ## Follow the logs (Ctrl-C ends it); of one: SERVICE=backend
	@trap : INT; $(COMPOSE) logs --follow --tail 100 $(SERVICE) || [ $$? -eq 130 ]

password: ## Give the first user a new password, also for a forgotten one
	@$(PYTHON) scripts/password.py

backup: ## All of it in one file while it runs: TO=DIR, DATASETS=1, KEEP=7, PASSPHRASE_FILE= or RECIPIENT=; docs/backup.md
	@$(PYTHON) scripts/backup.py $(ASKED) $(if $(METRICS),--metrics "$(METRICS)")

backup-verify: ## Whether a backup is whole: FILE=backups/....tar.gz
	@$(PYTHON) scripts/backup.py verify "$(FILE)" $(KEY)

restore: ## The installation as a backup has it, here or on a bare machine: FILE=; FORCE=1 where there is one
	@$(PYTHON) scripts/restore.py "$(FILE)" $(if $(FORCE),--force) $(KEY)

upgrade: ## Another version, and back where it fails: VERSION=v0.2.0, else the newest tag; docs/upgrade.md
	@$(PYTHON) scripts/upgrade.py $(if $(VERSION),"$(VERSION)") $(if $(FROM),--from "$(FROM)") \
		$(if $(TO),--to "$(TO)") $(if $(PASSPHRASE_FILE),--passphrase-file "$(PASSPHRASE_FILE)")

bundle: ## One file from which machines without a network install: GPU=1, WITHOUT=backend; docs/bundle.md
	@$(PYTHON) scripts/bundle.py make $(if $(WITHOUT),--without $(WITHOUT))

bundle-push: ## The images to a registry of your own, for the chart: REGISTRY=registry.example.com, BUNDLE=its folder
	@$(PYTHON) scripts/bundle.py push "$(REGISTRY)" $(if $(BUNDLE),"$(BUNDLE)")

down: ## Stop and remove the containers; all data stays
	@$(COMPOSE) down

destroy: ## Remove containers and their data; asks first (FORCE=1 does not)
	@$(PYTHON) scripts/destroy.py

test: test-lint test-unit test-integration test-kubernetes test-host ## Everything below, in order of cost

test-tools: # .venv from requirements-dev.lock, helm and kubectl
	@$(PYTHON) scripts/dev testtools

test-lint: test-tools ## ruff, mypy, hadolint, ansible-lint, shellcheck, Compose's own check, tables of settings and values, version
	$(RUN) ruff check $(PYTHON_FILES)
	$(RUN) ruff format --check $(PYTHON_FILES)
	$(RUN) mypy
	$(RUN) PYTHONPATH=backend:scripts lint-imports --no-logo --no-cache
	$(RUN) hadolint --config .hadolint.yaml backend/Dockerfile label-studio/Dockerfile postgres/Dockerfile
	$(RUN) hadolint --config .hadolint.yaml tests/host/Dockerfile
	cd ansible && $(RUN) ansible-lint -q --nocolor
	$(RUN) shellcheck scripts/image/apt-install scripts/image/get-uv scripts/image/uv-install .ci/run \
		scripts/apt-only scripts/bundle-install \
		postgres/docker-entrypoint.sh
	@$(PYTHON) scripts/dev check_compose
	@$(RUN) python scripts/dev settings --check
	@$(RUN) python scripts/dev version --check

test-unit: BUDGET = 15m
test-unit: test-tools ## Tests that need no Docker
	$(PYTEST) -n 2 -m "not docker and not server" backend/tests label-studio/tests tests/unit

# What a suite needs on this machine, without the images: the Docker Engine, .venv, programs.
test-integration-setup test-kubernetes-setup test-host-setup: test-%-setup:
	@$(PYTHON) scripts/install_engine.py
	@$(PYTHON) scripts/dev testtools $*

test-integration: BUDGET = 45m
test-integration: test-integration-setup ## Both services, booted and checked end to end; builds the images first
	@$(PYTHON) scripts/up.py prepare
	@$(PYTHON) scripts/dev check_compose
	$(PYTEST) backend/tests/server/test_service.py label-studio/tests/test_backup.py tests/integration

test-kubernetes: BUDGET = 35m
test-kubernetes: test-kubernetes-setup ## The chart, on the cluster of KUBECONFIG or one that kind makes; builds the images first
	@$(PYTHON) scripts/up.py prepare
	@$(PYTHON) scripts/build.py postgres
	$(PYTEST) -n 3 --dist loadscope tests/kubernetes

test-host: BUDGET = 45m
test-host: test-host-setup ## The playbooks, on fresh hosts with systemd, over SSH; builds the images first
	@$(PYTHON) scripts/up.py prepare
	$(PYTEST) tests/host

test-bare: BUDGET = 30m
test-bare: ## Linters, unit tests and what the other suites install, on a bare Debian (SUITE=bookworm)
	@timeout --kill-after=60 $(BUDGET) $(PYTHON) scripts/dev bare $(SUITE)

bench: test-tools ## The backend against a bare loop on the demo images (ARGS=--help)
	@$(PYTHON) scripts/up.py prepare
	$(RUN) $(PYTHON) backend/bench/bench.py $(ARGS)

format: test-tools ## Put the Python files in their form
	$(RUN) ruff check --fix-only --quiet $(PYTHON_FILES)
	$(RUN) ruff format $(PYTHON_FILES)

lock: ## Make the lock files anew from their .in files (UPGRADE=1: newest versions)
	@$(PYTHON) scripts/dev lock $(if $(UPGRADE),--upgrade)
