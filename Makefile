# Every target of the project; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
# An editable install warns about a folder in the working directory with the package's name. Here it is the package.
INSTALL = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable

# Nothing is installed for a target whose arguments are missing. A user needs fewer extras than the tests; a stamp says which ones the environment has.
STAMP_USE := $(VENV)/.installed
STAMP_TRAIN := $(VENV)/.installed-train
STAMP_RTX := $(VENV)/.installed-rtx
STAMP_DEV := $(VENV)/.installed-dev

# On a host with a GPU: TensorRT and DALI for one CUDA major version, in a separate environment, because DALI for CUDA 12 and
# DALI for CUDA 13 are the same Python package. With a driver older than R580: GPU_EXTRA=gpu-cu12. Without access to NVIDIA's
# own index, and not on H100 or other GPUs of servers: GPU_EXTRA=rtx, which is TensorRT for RTX.
GPU_EXTRA ?= gpu-cu13
GPU_EXTRAS := gpu-cu13 gpu-cu12 rtx
HAS_GPU := $(shell command -v nvidia-smi)
GPU_VENV := $(if $(HAS_GPU),.venv-$(GPU_EXTRA),$(VENV))

.PHONY: help demo classify report train engines doctor test coverage test-lowest test-slow test-gpu first-hour lint format docs picture dist models bench race clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "Research use only, not a medical device."

demo: $(STAMP_USE) ## Set up, draw a small folder of synthetic slices and classify it into build/demo/
	@rm -rf build/demo
	@$(BIN)/mribatch demo build/demo/slices
	@$(BIN)/mribatch classify build/demo/slices --out build/demo/run --csv || test $$? -eq 3
	@echo "Some of the demo's files are broken on purpose, so some of them fail. The results are in build/demo/run/."
	@echo "The slices are drawn by a program: how often the model agrees with their labels says nothing about the model."
	@echo "Next: docs/getting-started.md"

classify: $(if $(and $(DATA),$(OUT)),$(STAMP_USE)) ## Classify a folder: make classify DATA=folder OUT=results
	@test -n "$(DATA)" -a -n "$(OUT)" || { echo "Error: DATA and OUT are needed. Fix: make classify DATA=folder OUT=results" >&2; exit 2; }
	$(BIN)/mribatch classify "$(DATA)" --out "$(OUT)"

report: $(if $(RUN),$(STAMP_USE)) ## Measure a finished run: make report RUN=results [GROUPS_CSV=groups.csv]
	@test -n "$(RUN)" || { echo "Error: RUN is needed. Fix: make report RUN=results" >&2; exit 2; }
	$(BIN)/mribatch report "$(RUN)" $(if $(GROUPS_CSV),--groups "$(GROUPS_CSV)")

train: $(if $(and $(RECIPE),$(DATA),$(OUT)),$(STAMP_TRAIN)) ## Train a bundle: make train RECIPE=cnn DATA=folder OUT=bundle [GROUPS_CSV=groups.csv]
	@test -n "$(RECIPE)" -a -n "$(DATA)" -a -n "$(OUT)" || { echo "Error: RECIPE, DATA and OUT are needed. Fix: make train RECIPE=cnn DATA=folder OUT=bundle" >&2; exit 2; }
	$(BIN)/mribatch train "$(RECIPE)" "$(DATA)" --out "$(OUT)" $(if $(GROUPS_CSV),--groups "$(GROUPS_CSV)")

engines: $(if $(HAS_GPU),$(GPU_VENV)/.installed,$(STAMP_RTX)) ## Build TensorRT engines for every shipped bundle, or find them in the cache: make engines [CACHE=folder]
	@$(GPU_VENV)/bin/mribatch engine build $(if $(CACHE),--cache "$(CACHE)")

doctor: $(STAMP_USE) ## Show what this machine has and what is missing
	@$(BIN)/mribatch doctor

test: $(STAMP_DEV) ## Set up (TensorFlow, DALI, TensorRT for RTX: 5 GB) and run the quick tests, under ten minutes on two cores
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

coverage: $(STAMP_DEV) ## Run the quick tests and show which lines they do not reach; the report is in build/coverage/html
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report=term --cov-report=html:build/coverage/html

test-lowest: ## Run the quick tests with the lowest versions that setup.cfg allows, in a separate environment
	@test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	@mkdir -p build && $(PYTHON) -m tests.lowest_versions > build/lowest.txt
	PYTHONWARNINGS=ignore .venv-lowest/bin/python -m pip install --quiet --constraint build/lowest.txt --editable '.[dev,train,rtx,dali]'
	.venv-lowest/bin/python -m pytest -n $(JOBS) --dist loadfile -W default

test-slow: $(STAMP_DEV) ## Run the tests that take minutes: kills, fuzzing, large folders
	$(BIN)/python -m pytest -m slow

test-gpu: $(if $(HAS_GPU),$(GPU_VENV)/.installed,$(STAMP_DEV)) ## Run the tests that need an NVIDIA GPU; where none of them can run, this fails
	$(GPU_VENV)/bin/python -m pytest -m gpu

first-hour: $(if $(HAS_GPU),$(GPU_VENV)/.installed,$(STAMP_DEV)) ## Ask a new GPU everything that only a GPU can tell; writes benchmarks/results/first_hour-*
	$(GPU_VENV)/bin/python -m benchmarks.first_hour

lint: $(STAMP_DEV) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mribatch tests benchmarks docs

format: $(STAMP_DEV) ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP_DEV) ## Write the generated pages again: command line, Python, run.json, and the generated parts of README.md
	$(BIN)/python docs/make_cli_reference.py
	$(BIN)/python docs/make_python_reference.py
	$(BIN)/python docs/make_run_json_reference.py
	$(BIN)/python -m docs.make_readme
	$(BIN)/python -m docs.make_reliability

picture: $(STAMP_DEV) ## Draw the pictures of README and docs again from the demo, and run the quickstart notebook again
	$(BIN)/python docs/make_readme_picture.py
	$(BIN)/python docs/run_quickstart.py
	$(BIN)/python docs/make_report_picture.py
	$(BIN)/python docs/make_audit_picture.py

dist: $(STAMP_DEV) ## Build a wheel and a source distribution in dist/, check them, and try the wheel in an empty environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	rm -rf mribatch.egg-info
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m benchmarks.one_image dist/*.whl

models: $(STAMP_DEV) ## Rebuild the untrained bundle that the tests use
	$(BIN)/python -m tests.make_models tests/models/placeholder

bench: $(if $(HAS_GPU),$(GPU_VENV)/.installed,$(STAMP_DEV)) ## Measure every stage, whole runs and folders with broken files, on the CPU and on a GPU if there is one
	$(GPU_VENV)/bin/python -m benchmarks.cpu_ceiling
	$(GPU_VENV)/bin/python -m benchmarks.stages
	$(GPU_VENV)/bin/python -m benchmarks.broken_folder

race: $(STAMP_DEV) ## Race against other tools on this machine: make race [DATA=folder] [REPEATS=3] [PEERS=a,b]
	$(BIN)/python -m benchmarks.race $(if $(DATA),--data "$(DATA)") $(if $(REPEATS),--repeats $(REPEATS)) $(if $(PEERS),--peers $(PEERS))

$(GPU_EXTRAS:%=.venv-%/.installed): .venv-%/.installed: setup.cfg pyproject.toml
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	PYTHONWARNINGS=ignore $(@D)/bin/python -m pip install --quiet --editable '.[dev,$*]' || { echo "Error: $* cannot be installed. Fix: see docs/how-to/gpu.md, or add GPU_EXTRA= with another of: $(GPU_EXTRAS)" >&2; exit 1; }
	@touch $@

clean: ## Remove everything that make has built, including the environments
	rm -rf build $(VENV) .venv-gpu-* .venv-rtx .venv-lowest

$(STAMP_USE): setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Error: mribatch needs Python 3.11 or newer. Fix: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) .
	@touch $@

$(STAMP_TRAIN): $(STAMP_USE)
	$(INSTALL) '.[train]'
	@touch $@

$(STAMP_RTX): $(STAMP_USE)
	$(INSTALL) '.[rtx]'
	@touch $@

$(STAMP_DEV): $(STAMP_USE)
	$(INSTALL) '.[dev,train,rtx,dali]'
	@touch $@
