# Two commands do everything on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
# The environment is made on first use in $(VENV); a second call finds it ready.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV ?= .venv
PYTEST_ARGS ?=
DEMO_ARGS ?= --out demo --force
THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

BIN := $(VENV)/bin
# What is never imported is never compiled, and what is imported is compiled once.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
INSTALL = $(BIN)/python $(PIP) --editable
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo check test test-numpy test-torch test-tensorflow test-jax environment lint format clean

help: ## Say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.torch ## Simulate a scan, train, reconstruct it and print how close the result is
	$(BIN)/ptycho demo $(DEMO_ARGS)

test: $(VENV)/.test ## Run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) $(PYTEST_ARGS)

# A file's tests share what is trained and what is compiled, so they stay together until a process has nothing to do.
SPREAD := --numprocesses $(THREADS) --dist worksteal

# NumPy's half of the tests of the lower layers, and the conventions: most mistakes show there, without any compiler.
CHECK := tests/test_conventions.py tests/test_former_names.py tests/test_tools.py tests/config tests/data \
	tests/evaluation tests/model tests/physics tests/cli/test_help.py -m "not slow" -k "not jax and not tensorflow and not torch"

check: lint ## Run the linters and the tests that catch most, in a few minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(SPREAD) $(CHECK)

# Each with one framework, or none, in an environment of its own: the rest must not be missed.
ALONE ?= tests/backends/test_alone.py

test-numpy: $(VENV)-numpy/.alone ## Run the tests that need no framework where there is none
test-torch: $(VENV)-torch/.alone ## ... where there is PyTorch alone
test-tensorflow: $(VENV)-tensorflow/.alone ## ... where there is TensorFlow alone
test-jax: $(VENV)-jax/.alone ## ... where there is JAX alone

test-numpy test-torch test-tensorflow test-jax:
	OMP_NUM_THREADS=1 $(VENV)-$(@:test-%=%)/bin/python -m pytest $(SPREAD) $(ALONE)

$(VENV)-numpy/.alone: pyproject.toml constraints.txt
	$(MAKE) --no-print-directory VENV=$(VENV)-numpy $(VENV)-numpy/.made
	$(VENV)-numpy/bin/python $(PIP) --editable '.[test]'
	@touch $@

# The others borrow what needs no framework from the one that has none.
SITE = import sysconfig; print(sysconfig.get_path("purelib"))

$(VENV)-%/.alone: $(VENV)-numpy/.alone
	$(MAKE) --no-print-directory VENV=$(VENV)-$* $(VENV)-$*/.made
	$(VENV)-numpy/bin/python -c '$(SITE)' > "$$($(VENV)-$*/bin/python -c '$(SITE)')/borrowed.pth"
	$(VENV)-$*/bin/python $(PIP) --editable '.[$*,test]'
	@touch $@

environment: $(VENV)/.dev ## Make the one of the tests and the linters

lint: $(VENV)/.dev ## Check style, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Bring the code to the common layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and all caches
	rm -rf $(VENV) $(VENV)-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name it with make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not Python 3.11 or later; name one that is with make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) '.[torch]'
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) '.[all,test,peers,browser]'
	$(BIN)/python $(PIP) --no-deps ptychodus
	@touch $@ $(VENV)/.torch

$(VENV)/.dev: $(VENV)/.test
	$(INSTALL) '.[dev]'
	@touch $@
