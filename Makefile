# Every target sets up what it needs; nothing is installed twice.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two workers: each loads TensorFlow, and more of them than cores only wait for one another. A file
# stays with one of them, so that what its tests share is made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-all lint format benchmark clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing keras_kd and its dependencies into $(VENV): about two minutes, once."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(INSTALLED) ## create the virtual environment and install everything into it

quickstart: $(INSTALLED) ## distill, prune, quantize and convert a digit classifier; write a report
	$(BIN)/keras-kd quickstart

test: $(INSTALLED) ## run the tests that take a few minutes
	$(PYTEST) -m "not slow"

test-all: $(INSTALLED) ## run every test
	$(PYTEST)

lint: $(INSTALLED) ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(INSTALLED) ## measure speed side by side with keras.distillation; print ratios
	$(BIN)/python benchmarks/step.py

clean: ## remove the virtual environment and what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
