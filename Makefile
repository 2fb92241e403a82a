# `make run` starts the server, `make test` proves it, `make` alone lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := uv==0.13.9
PIP_AUDIT := pip-audit==2.10.1

# Two test files at a time: most tests wait for a server of their own.
WORKERS ?= 2

PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command 'make lock' pyproject.toml --group build

.DEFAULT_GOAL := help
.PHONY: help run test compose-test campaign fuzz audit check format bench screenshots setup setup-dev lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## start the server in embedded mode (settings: CHAT_* variables)
	@$(BIN)/chat-system serve

test: setup-dev ## run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

compose-test: setup-dev ## bring compose.yaml up, kill each of its services under load (needs Docker; 10 to 20 minutes)
	@CHAT_TEST_COMPOSE=required $(BIN)/python -m pytest tests/compose

campaign: setup-dev ## attack both modes under load: MINUTES=10 for each, FAULTS=1000, SITES=2 at once; SEED=… repeats the choices
	@$(BIN)/python -m campaign run --minutes $(or $(MINUTES),10) --sites $(or $(SITES),1) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

fuzz: setup-dev ## send REQUESTS=1000000 made-up requests and judge the answers, then rude clients: SEED=… repeats them
	@$(BIN)/python -m campaign fuzz --requests $(or $(REQUESTS),1000000) $(if $(SEED),--seed $(SEED))
	@$(BIN)/python -m campaign hostile

audit: $(VENV)/.made ## look the exact versions up among known vulnerabilities, at AUDIT_URL (OSV, if not named)
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_AUDIT); }
	@$(VENV)/audit/bin/pip-audit --progress-spinner off --disable-pip --require-hashes --vulnerability-service osv \
		$(if $(AUDIT_URL),--osv-url $(AUDIT_URL)) -r requirements/run.txt -r requirements/stack.txt

check: setup-dev ## format, lint, types, architecture: everything but the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup-dev ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup-dev ## measure
	$(BIN)/python -m bench

screenshots: setup-dev ## take the pictures of the console in docs/images anew (needs Chromium)
	@$(BIN)/python -m tests.console.screenshots

setup: $(VENV)/.project ## install what `make run` needs into .venv

setup-dev: $(VENV)/.project $(VENV)/.dev ## install what tests and checks need, too

lock: $(VENV)/.made ## recompile requirements/*.txt to the newest versions that pyproject.toml allows
	$(PIP_INSTALL) $(UV)
	$(COMPILE) -o requirements/run.txt
	$(COMPILE) --extra stack -c requirements/run.txt -o requirements/stack.txt
	$(COMPILE) --extra stack --group dev -c requirements/stack.txt -o requirements/dev.txt

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests bench campaign -name __pycache__ -type d -prune -exec rm -rf {} +

# Empty files in .venv remember what it holds: a second call is instant, a changed list installs again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed and '$(PYTHON)' is not: name one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "'$(PYTHON) -m venv' does not work: on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: requirements/run.txt $(VENV)/.made
	@echo "Installing the runtime dependencies"
	@$(PIP_INSTALL) --require-hashes --no-deps -r $<
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "Installing the development dependencies"
	@$(PIP_INSTALL) --require-hashes --no-deps -r $<
	@touch $@

$(VENV)/.project: pyproject.toml $(VENV)/.run
	@$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@
