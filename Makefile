# Every target sets up what it needs; nothing is installed twice.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two workers: each loads TensorFlow, and more of them than cores only wait for one another. A file
# stays with one of them, so that what its tests share is made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

PAGE := examples/web
# MediaPipe needs a newer absl-py than TF-MOT bears.
MEDIAPIPE := .venv-mediapipe
# Distilling on another backend of Keras needs no TensorFlow; see docs/backends.md.
BACKENDS := jax torch
WITHOUT_TENSORFLOW := 'keras>=3.12' 'numpy>=1.26' 'rich>=13' 'pytest>=8'
# A plain `torch` would be the newest one, with CUDA.
BACKEND_jax := 'jax>=0.4.38'
BACKEND_torch := 'torch==2.13.0'
# Only what the wheel itself asks for.
FRESH := .venv-wheel
NEEDS_NPM = @command -v npm >/dev/null || { echo "npm is missing: install Node.js 20 or newer"; exit 2; }

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-all test-backends test-tensorflow test-android test-web \
	lint format wheel docs benchmark models web clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

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

test-backends: $(BACKENDS:%=test-%) test-tensorflow ## distill on JAX, PyTorch and TensorFlow, each installed by itself

# XLA compiles thousands of small programs here, each of which runs once.
$(BACKENDS:%=test-%): test-%: $(INSTALLED) .venv-%/.installed
	KERAS_BACKEND=$* KERAS_KD=$(abspath $(BIN))/keras-kd JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
		.venv-$*/bin/python -m pytest -p no:cacheprovider tests/backends
	KERAS_BACKEND=$* JAX_DISABLE_MOST_OPTIMIZATIONS=1 .venv-$*/bin/python -m pytest \
		-p no:cacheprovider tests/losses/test_contract.py \
		-k "is_that_of_the_reference or golden_numbers or no_gradient"

test-tensorflow: $(INSTALLED)
	$(BIN)/python -m pytest -p no:cacheprovider -m "" tests/backends

.PRECIOUS: .venv-%/.installed
.venv-%/.installed: setup.cfg
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@echo "Installing Keras with $* into .venv-$*: about a minute, once."
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check \
		$(BACKEND_$*) $(WITHOUT_TENSORFLOW)
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-android: $(INSTALLED) $(MEDIAPIPE)/.installed ## install MediaPipe by itself, run files for Android in it
	$(BIN)/python -m pytest tests/tflite/android -rs

$(MEDIAPIPE)/.installed:
	test -x $(MEDIAPIPE)/bin/python || $(PYTHON) -m venv $(MEDIAPIPE)
	@echo "Installing MediaPipe into $(MEDIAPIPE): about a minute, once."
	$(MEDIAPIPE)/bin/python -m pip install --quiet --disable-pip-version-check 'mediapipe>=1.2,<2'
	@touch $@

test-web: $(INSTALLED) ## install Chromium and the page's packages, test the page in the browser
	$(NEEDS_NPM)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		command -v google-chrome >/dev/null || { test "$$(id -u)" = 0 && apt-get update && \
		apt-get install --yes chromium; } || \
		{ echo "Chromium is missing: install it, as root with apt-get install chromium"; exit 2; }
	cd $(PAGE) && npm ci
	$(BIN)/python -m pytest tests/web -rs

lint: $(INSTALLED) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(INSTALLED) ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(INSTALLED) ## build the wheel, install it into a fresh environment, import it (a minute)
	rm -rf build dist $(FRESH)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile dist/*.whl
	cd $(FRESH) && bin/python -I -c "import keras_kd.compression, keras_kd.evaluation, keras_kd.tflite"
	cd $(FRESH) && bin/keras-kd --version && bin/keras-kd --help
	rm -rf build $(FRESH)

docs: $(INSTALLED) ## build the documentation in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open build/site/index.html"

benchmark: $(INSTALLED) ## measure time and memory beside keras.distillation and PyTorch (15 minutes)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/memory.py

models: $(INSTALLED) ## rebuild tflite_models from the data of TFDS in DATA_DIR (an hour)
	$(BIN)/python tflite_models/make.py $(DATA_DIR)

web: $(PAGE)/node_modules/.package-lock.json ## serve a page on which a student reads your digits
	node $(PAGE)/serve.mjs

# The file that npm writes when all packages are there.
$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package-lock.json
	$(NEEDS_NPM)
	cd $(PAGE) && npm ci --omit=dev
	@touch $@

clean: ## remove the virtual environment and what was built
	rm -rf $(VENV) $(BACKENDS:%=.venv-%) $(MEDIAPIPE) $(FRESH) $(PAGE)/node_modules build dist *.egg-info .pytest_cache .ruff_cache
