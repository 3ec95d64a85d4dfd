# The one entrance: `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := constraints.txt
LOWEST := constraints-lowest.txt
LIGHT := constraints-light.txt
PARALLEL := --numprocesses auto --dist worksteal
COVERAGE := --cov --cov-report=term
# Tests that use, between them, every package that imgsearch imports.
BOUNDED := $(addprefix tests/,ann embedding files images storage querying/test_export.py querying/test_query.py \
  indexing/test_update.py indexing/test_watch.py maintenance/test_discard.py cli/test_query.py cli/test_tune.py \
  web/test_api.py web/test_assistants.py web/test_serve.py)
INSTALL := --editable '.[demo,dev,bench,lite,mcp,tables,text,timm,watch,web]'

# Real images for the tests that can use them, where this checkout has them beside it.
IMGSEARCH_DATA ?= $(abspath $(wildcard ../shared/data))
export IMGSEARCH_DATA
# What was compiled is kept, whatever is set outside: the tests start many hundred processes.
export PYTHONDONTWRITEBYTECODE =
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Every pip that make starts installs these releases, the tools that build a package included.
export PIP_CONSTRAINT = $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT = $(CONSTRAINTS)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-failed test-scale test-slow test-latest test-lowest test-bounds test-light test-in lint constraints audit bench bench-answers bench-peers bench-ray clean

help:  ## show this
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## install imgsearch and its tools into .venv

demo: $(STAMP)  ## index and query photographs of scikit-image and scikit-learn (15 seconds)
	@echo "Running the demonstration: about 15 seconds."
	@$(BIN)/python -m demo

test: $(STAMP)  ## run the quick form of the tests (2 to 4 minutes)
	@echo "Running the quick form of the tests: 2 to 4 minutes."
	@$(BIN)/python -m pytest $(PARALLEL) --fast

test-all: $(STAMP)  ## run all tests in full, and measure the coverage of branches (about 35 minutes)
	@echo "Running all tests in full and measuring their coverage: about 35 minutes."
	@$(BIN)/python -m pytest $(PARALLEL) $(COVERAGE)

test-failed: $(STAMP)  ## run once more, one after another, the tests that failed last
	@$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(TESTS)

test-slow: $(STAMP)  ## run all tests and do all the harm they can: kills, faults, flips, hostile files
	@echo "Running all tests, with all the harm they can do: about 90 minutes."
	@$(BIN)/python -m pytest --all-harm

test-scale: $(STAMP)  ## install the extras for more than one machine, and test them for real
	@$(BIN)/python -m pip install -qq --editable '.[milvus,ray,scale]'
	@$(BIN)/python -m pytest tests/scale

test-latest:  ## run the quick form of the tests on the newest release of every package, in .venv-latest
	@$(MAKE) --no-print-directory test-in VENV=.venv-latest CONSTRAINTS=

test-lowest:  ## run the quick form of the tests on the oldest releases allowed, in .venv-lowest
	@$(MAKE) --no-print-directory test-in VENV=.venv-lowest CONSTRAINTS=$(LOWEST) WARNINGS='-W default'

test-bounds:  ## run only those of them that use what imgsearch imports, package by package
	@$(MAKE) --no-print-directory test-lowest TESTS='$(BOUNDED)'

test-light:  ## do the main job with the default network in an environment without torch, in .venv-light
	@echo "Installing into .venv-light, then doing the main job there: about a minute."
	@test -x .venv-light/bin/pip || $(PYTHON) -m venv --clear .venv-light
	@.venv-light/bin/python -m pip install -qq --no-deps --requirement $(LIGHT) --editable .
	@.venv-light/bin/python -m tests.support.main_job
	@du -sm .venv-light | awk '{ print "The environment takes", $$1, "MB."; exit $$1 > 700 }'

test-in:
	@echo "Installing into $(VENV), then running the quick form of the tests: about 10 minutes."
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade --upgrade-strategy eager $(INSTALL)
	@$(BIN)/python -m pytest $(PARALLEL) $(WARNINGS) --fast $(TESTS)

# The oldest release allowed of what imgsearch itself imports; of its tools, the newest.
PIN = UV_CUSTOM_COMPILE_COMMAND='make constraints' $(BIN)/uv pip compile pyproject.toml \
  --quiet --upgrade --no-annotate --python-version 3.11
# What the main job with the default network does without.
LEFT_OUT = matplotlib onnx opencv-python safetensors scipy torch torchvision
constraints: $(STAMP)  ## pin the newest releases in constraints.txt, the oldest allowed in constraints-lowest.txt
	@$(PIN) --universal --all-extras --output-file $(CONSTRAINTS)
	@$(PIN) --resolution lowest-direct --no-deps --extra lite --extra mcp --extra tables --extra text --extra timm --extra watch --extra web --output-file $(LOWEST)
	@cp $(LOWEST) $(LOWEST).in
	@$(PIN) --extra demo --extra dev --extra bench --extra lite --extra mcp --extra tables --extra text --extra timm --extra watch --extra web --constraint $(LOWEST).in --output-file $(LOWEST)
	@rm $(LOWEST).in
	@printf '%s ; python_version < "3"\n' $(LEFT_OUT) > $(LIGHT).in
	@$(PIN) --universal --extra web --override $(LIGHT).in --constraint $(CONSTRAINTS) --output-file $(LIGHT)
	@rm $(LIGHT).in

lint: $(STAMP)  ## check style, types and the import table (about 20 seconds)
	@echo "Checking style, types and imports: about 20 seconds."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

audit: $(STAMP)  ## look up the pinned releases in the OSV database of known vulnerabilities
	@$(BIN)/python -m pip install -qq --editable '.[audit]'
	@$(BIN)/pip-audit --vulnerability-service osv --disable-pip --no-deps --requirement $(CONSTRAINTS)

bench: $(STAMP)  ## measure all that this machine can do by itself (about 60 minutes)
	@echo "Measuring: about 60 minutes; leave the machine alone meanwhile."
	@$(BIN)/python -m benchmarks.bench_extract --seconds 8 --no-channels-last
	@$(BIN)/python -m benchmarks.bench_memory
	@$(BIN)/python -m benchmarks.bench_query
	@$(BIN)/python -m benchmarks.bench_update
	@$(BIN)/python -m benchmarks.bench_files
	@$(BIN)/python -m benchmarks.bench_growth
	@$(BIN)/python -m benchmarks.bench_kmeans
	@$(BIN)/python -m benchmarks.bench_serve
	@$(BIN)/python -m benchmarks.bench_page
	@$(BIN)/python -m benchmarks.bench_duplicates

bench-answers: $(STAMP)  ## measure the ranking, z, and what they cost: the figures of docs/answers.md
	@$(BIN)/python -m benchmarks.bench_answers

bench-peers: $(STAMP)  ## compare with Faiss, hnswlib, usearch, KMeans and exact search
	@$(BIN)/python -m pip install -qq --editable '.[peers]'
	@$(BIN)/python -m benchmarks.bench_peers

bench-ray: $(STAMP)  ## measure what Ray costs on this machine, and what a second worker and node bring
	@$(BIN)/python -m pip install -qq --editable '.[ray]'
	@$(BIN)/python -m benchmarks.bench_ray

clean:  ## remove .venv and what the tools left
	rm -rf $(VENV) .venv-latest .venv-light .venv-lowest .demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage*

$(STAMP): pyproject.toml $(wildcard $(CONSTRAINTS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "imgsearch needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV): 2 to 10 minutes and 6 GB, nearly all of it PyTorch."
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq $(INSTALL)
	@touch $@
	@echo "Installed."
