# Everything starts from a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SEED   ?= 0
WORKERS ?= 2
DATA   ?= ../shared/data
# One thread a process: small models gain nothing from more, and processes share the cores.
export OMP_NUM_THREADS ?= 1
export FLWR_TELEMETRY_ENABLED ?= 0
export FLWR_DISABLE_UPDATE_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint types format browser results-demo results-detector results-potency results-headline results-engines results-papers results-models results-hostile results-soak results-shadows results-cost clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fl_shield needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); torch and its libraries take a few minutes the first time …"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]' --constraint constraints.txt
	@touch $@

demo: $(STAMP) ## run the demonstration: SEED=n, ARGS='key=value …'
	$(BIN)/fl-shield simulate experiment=demo seed=$(SEED) $(ARGS)

test: $(STAMP) browser ## run all tests, journeys included
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(STAMP) ## run the tests that take no processes of their own
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' $(ARGS)

lint: $(STAMP) ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP) ## check types
	$(BIN)/mypy -p fl_shield && $(BIN)/mypy tests benchmarks examples

format: $(STAMP) ## format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

browser: ## install Chromium for the report's test, where that is possible
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1 && \
	    (apt-get update -qq && apt-get install -y -qq chromium) >/dev/null 2>&1; } || \
	  echo "No Chromium here: the report's test in a browser will be skipped."

results-demo: $(STAMP) ## five seeds of the demonstration -> docs/results/demo.json and README
	$(BIN)/python -m benchmarks.demo_seeds

results-detector: $(STAMP) ## the detector on what it has never seen -> docs/results/detector.json: DATA=dir
	$(BIN)/python -m benchmarks.detector_results --data $(DATA) --workers $(WORKERS) $(SHIP)

results-papers: $(STAMP) ## the detectors of the papers on the same victims -> docs/results/papers.json: DATA=dir
	$(BIN)/python -m benchmarks.papers --data $(DATA) $(ARGS) $(SHIP)

results-models: $(STAMP) ## detectors and repairs of whole models -> docs/results/models.json: DATA=dir
	$(BIN)/python -m benchmarks.model_scanning_classes --workers $(WORKERS)
	$(BIN)/python -m benchmarks.model_scanning --data $(DATA) --workers $(WORKERS) $(ARGS)

results-hostile: $(STAMP) ## ten thousand hostile rounds -> docs/results/hostile.json
	$(BIN)/python -m benchmarks.hostile_rounds

results-soak: $(STAMP) ## a thousand clients, two hundred rounds -> docs/results/soak.json
	$(BIN)/python -m benchmarks.soak --data $(DATA)

results-shadows: $(STAMP) ## what the server's own shadows are worth -> docs/results/shadows.json: DATA=dir
	$(BIN)/python -m benchmarks.server_shadows --data "$(DATA)" $(ARGS)

results-potency: $(STAMP) ## which attacks work -> docs/results/potency.csv: DATA=dir ARGS='include=[…]'
	$(BIN)/python -m benchmarks.potency data_root=$(abspath $(DATA)) workers=$(WORKERS) $(ARGS)

results-headline: $(STAMP) ## every defence against every attack -> docs/results/headline.csv: DATA=dir ARGS='…'
	$(BIN)/python -m benchmarks.headline data_root=$(abspath $(DATA)) workers=$(WORKERS) $(ARGS)

results-engines: $(STAMP) ## what Flower's engine costs beside training -> docs/results/engines.json
	$(BIN)/python -m benchmarks.engines

results-cost: $(STAMP) ## time and memory of the shield -> docs/results/cost.json: DATA=dir
	$(BIN)/python -m benchmarks.cost --data $(DATA)

clean: ## remove the environment and caches, not the runs
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis
