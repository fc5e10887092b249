# Every target works on a machine that has only python3, make and git: it makes .venv when there is none.
PYTHON ?= python3
OUT ?= out/pocket
RUNS ?= 200000
DATA ?= data
REAL ?= out/smollm2-135m
SMOLLM2 ?= out/models/smollm2-135m

PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
.DEFAULT_GOAL := help
.PHONY: help quickstart real test test-serving test-all load-test test-faults fuzz check size format clean browser

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: .venv/.installed ## Install, then train, compare and report the pocket world (OUT=out/pocket)
	.venv/bin/mocae run recipes/pocket.yaml --out $(OUT)

real: .venv/.installed $(SMOLLM2)/config.json ## Train, compare and report a real model on the files in DATA=data (docs/real-lab.md); 40 minutes
	@.venv/bin/mocae data check --out $(DATA) || { echo "first: .venv/bin/mocae data get --out $(DATA)"; exit 1; }
	MOCAE_DATA_ROOT=$(DATA) .venv/bin/mocae run smollm2-135m --set base.model=$(SMOLLM2) --out $(REAL)

test: .venv/.installed-dev ## Run the tests that need no network, no GPU and no real data
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

test-serving: .venv/.installed-dev tests/serving/js/node_modules browser ## Run the tests of server and chat page, slow ones too: clients, load, browser
	.venv/bin/python -m pytest -q -rs -m "not gpu and not network" tests/serving tests/ui

test-all: .venv/.installed-dev tests/serving/js/node_modules browser ## Run every test that needs no network and no GPU; long
	.venv/bin/python -m pytest -q -rs -m "not gpu and not network"

load-test: .venv/.installed-dev ## Serve OUT to 32 clients; tell throughput, latency and memory
	.venv/bin/python tests/serving/load.py $(OUT)

test-faults: .venv/.installed-dev ## Kill a run at twenty random moments, fill disks, damage files; minutes
	.venv/bin/python -m pytest -q -m "not gpu and not network" tests/pipelines/test_kill.py tests/pipelines/test_faults.py

fuzz: .venv/.installed-dev ## Fuzz every target with RUNS=200000 inputs each; minutes
	$(PIP) atheris==3.0.0
	for target in recipes readers weights replies artifacts; do \
	    .venv/bin/python fuzz/run.py $$target -runs=$(RUNS) || exit 1; done
	.venv/bin/python fuzz/folders.py --runs $$(($(RUNS) / 10))

check: .venv/.installed-dev ## Lint, format check, types, import order
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

size: .venv/.installed-dev ## Count code lines by package and compare with the goal; fails while the goal is missed
	@.venv/bin/python tools/size.py

format: .venv/.installed-dev ## Format the code and sort its imports
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean: ## Remove runs and caches (not .venv, not out/)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src plugins tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# What the tests of server and page need besides Python. A missing tool is told; its tests are not passed over.
tests/serving/js/node_modules: tests/serving/js/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js and npm, or run make test"; exit 1; }
	npm ci --prefix tests/serving/js --ignore-scripts --no-audit --no-fund --silent
	@touch $@

browser: .venv/.installed-dev
	@for name in chromium chromium-browser google-chrome; do ! command -v $$name >/dev/null || exit 0; done; \
	    .venv/bin/playwright install chromium || \
	    { echo "Chromium is missing and could not be fetched: install it, or run make test"; exit 1; }

$(SMOLLM2)/config.json: | .venv/.installed
	$(PIP) gguf -c constraints.txt
	.venv/bin/python tools/fetch_smollm2.py $(SMOLLM2)

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch first and alone: whichever build of this version pip prefers here (CPU or CUDA) is the one that stays.
.venv/.torch: constraints.txt | .venv/bin/python
	@echo "installing into .venv; the first time takes minutes"
	$(PIP) torch==2.13.0
	@touch $@

.venv/.installed: pyproject.toml constraints.txt .venv/.torch
	$(PIP) -e '.[train,eval]' -c constraints.txt
	@touch $@

.venv/.installed-dev: pyproject.toml plugins/rivals/pyproject.toml constraints.txt .venv/.torch
	$(PIP) -e '.[train,eval,export,serve,ui,dev]' -e plugins/rivals -c constraints.txt
	@touch $@ .venv/.installed
