# Run `make` for the list of targets. Everything happens inside .venv; nothing outside the clone is touched.

PYTHON ?= python3.11
PY := .venv/bin/python
DEMO := outputs/demo
DEMO_DATA := data/demo

export TOKENIZERS_PARALLELISM := false
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-fullsize microworld-data microworld-models fetch-models bench lint

help:  ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: .venv/installed  ## make .venv with the pinned packages (Python 3.11)

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip install --quiet --python $(PY) -r requirements.lock
	$(PY) -m uv pip install --quiet --python $(PY) --no-deps -e .
	@touch $@

test: install  ## the suite, on a machine without network or GPU: at most 10 minutes from a cold clone
	HF_HUB_OFFLINE=1 $(PY) -m pytest

test-slow: install  ## what takes minutes: full learning checks and the full-size run
	HF_HUB_OFFLINE=1 $(PY) -m pytest -m slow

test-fullsize: install  ## the public models' sizes with random weights: one training step, one edit, time and memory
	HF_HUB_OFFLINE=1 $(PY) -m pytest -m slow -s tests/test_fullsize.py

lint: install  ## style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
