# Every target does its own set-up: it finds a fitting Python, makes .venv and installs the pinned dependencies.
# `make PYTHON=/path/to/python3 test` picks the interpreter for a new .venv by hand.

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format docs notebooks bench bench-rivals bench-samplers bench-scaling bench-compare bench-gpu constraints clean
.DELETE_ON_ERROR:

VENV := .venv
# A folder made on Windows keeps its programs in Scripts.
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
DEV := $(VENV)/.stamp-dev
# The development install contains the demo's, so where it exists it serves for both.
DEMO := $(if $(wildcard $(DEV)),$(DEV),$(VENV)/.stamp-demo)
DOCS := $(if $(wildcard $(DEV)),$(DEV),$(VENV)/.stamp-docs)

# Without a BLAS to link to, PyTensor warns at import; psymech's models do not need one.
export PYTENSOR_FLAGS ?= blas__ldflags=
# Figures go to files; no display is needed.
export MPLBACKEND ?= Agg

FITS := import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 15))
NAMED := python3.13 python3.14 python3.12 python3 python
MANAGED := $(foreach version,3.13 3.14 3.12,$(foreach pattern,\
	.pyenv/versions/$(version)*/bin/python \
	.local/share/uv/python/*-$(version)*/bin/python3 \
	.local/share/mise/installs/python/$(version)*/bin/python \
	.asdf/installs/python/$(version)*/bin/python,\
	$(wildcard $(HOME)/$(pattern)))) \
	$(wildcard $(HOME)/miniforge3/bin/python $(HOME)/mambaforge/bin/python $(HOME)/miniconda3/bin/python $(HOME)/anaconda3/bin/python)

help:
	@echo "make demo      fit the examples and write a table and figures"
	@echo "make test      the tests, without those marked slow"
	@echo "make test-all  the tests, with those marked slow"
	@echo "make lint      ruff, spelling, pyright and the import contracts"
	@echo "make format    let ruff rewrite the code"
	@echo "make docs      run the examples and build the documentation's site"
	@echo "make notebooks run the examples whose script or package has changed"
	@echo "make bench     measure speed: other programs, samplers, growth (bench-rivals, bench-samplers, bench-scaling)"
	@echo "make bench-compare BASE=revision  a regression benchmark of the working tree, two minutes"
	@echo "make bench-gpu  the samplers on JAX on an NVIDIA GPU"
	@echo "make constraints  renew the pinned versions"
	@echo "make clean     remove what can be made again, .venv included"

demo: $(DEMO)
	@$(PY) examples/demo.py

test: $(DEV)
	@$(PY) -m pytest --durations=15

test-all: $(DEV)
	@$(PY) -m pytest --durations=15 -m "slow or not slow"

lint: $(DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib
	$(BIN)/pyright --pythonpath $(PY)
	$(BIN)/lint-imports --no-cache --no-logo

format: $(DEV)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(DOCS)
	@$(PY) docs/make_site.py

notebooks: $(DOCS)
	@$(PY) docs/make_notebooks.py

bench: bench-rivals bench-samplers bench-scaling
	@$(PY) benchmarks/table.py

bench-rivals: $(DEV)
	@PYTHON=$(PY) sh benchmarks/install_rivals.sh
	@$(PY) benchmarks/rivals.py

bench-samplers: $(DEV)
	@$(PY) benchmarks/samplers.py

bench-scaling: $(DEV)
	@$(PY) benchmarks/scaling.py
	@$(PY) -m benchmarks.million --out benchmarks/results/million.json

bench-compare: $(DEV)
	@$(PY) benchmarks/compare.py $(or $(BASE),HEAD)

# The CUDA build of the JAX version that is pinned; chains run vectorised on one device.
bench-gpu: $(DEV)
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt "jax[$(or $(CUDA),cuda12)]"
	@$(PY) benchmarks/samplers.py --device gpu

constraints: $(DEV)
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile --universal --python-version 3.12 --all-extras pyproject.toml --upgrade --quiet \
		--no-header --no-annotate --no-emit-index-url --output-file constraints.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist demo_output
	find psymech tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An interpreter that is on the path may still be a shim that fails, so each candidate has to run a line of Python.
# The folder is kept where its own interpreter still works, and made anew where it does not.
$(VENV)/.python:
	@if $(PY) -c "$(FITS)" >/dev/null 2>&1 && $(PY) -m pip --version >/dev/null 2>&1; then touch $@; exit 0; fi; \
	if [ -n "$(PYTHON)" ] && ! "$(PYTHON)" -c "$(FITS)" >/dev/null 2>&1; then \
		echo "PYTHON=$(PYTHON) is not a working Python 3.12, 3.13 or 3.14; looking for another." >&2; \
	fi; \
	for candidate in "$(PYTHON)" $(NAMED) $(MANAGED); do \
		[ -n "$$candidate" ] || continue; \
		if "$$candidate" -c "$(FITS)" >/dev/null 2>&1; then \
			echo "Making $(VENV) with $$("$$candidate" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
			"$$candidate" -m venv --clear $(VENV) && touch $@ && exit 0; \
			exit 1; \
		fi; \
	done; \
	echo "No Python 3.12, 3.13 or 3.14 (with venv and ensurepip) was found among: $(NAMED)" >&2; \
	echo "and the version managers' folders in $(HOME)." >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)" >&2; \
	exit 1

$(VENV)/.stamp-%: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "Installing psymech with its pinned dependencies ($*) into $(VENV); the first time takes a minute or two ..."
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@
