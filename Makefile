# Everything runs in .venv, which the first target that needs it makes; a second call installs nothing.
# Needed: make and Python 3.11 or newer. Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
DATA ?= digits
OUT ?= demo/
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-all gpu lint docs docs-gallery clean

demo: .venv/.installed-demo  ## six networks on real digits, trained and studied: demo/report.html
	$(BIN)/npk demo --data $(DATA) --out $(OUT)

test: .venv/.installed-dev  ## all tests but the slow ones; one that takes minutes shows where it stands, and fails
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout 300 --timeout-method thread -o faulthandler_timeout=240

test-all: .venv/.installed-notebooks  ## the slow tests and the notebooks of the docs too, with coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "" --cov --cov-report=term

gpu: .venv/.installed-dev  ## what only a GPU shows: its tests, compute-sanitizer, benchmarks beside their peers; code 2 without one
	@$(BIN)/python benchmarks/gpu_run.py

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

docs: .venv/.installed-dev  ## the pages, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-gallery: .venv/.installed-dev  ## the figures of the gallery again, in docs/gallery/
	$(BIN)/python docs/gallery/draw.py

clean:
	rm -rf .venv site build dist *.egg-info .coverage htmlcov .pytest_cache .ruff_cache
	find npk tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "npk: no $(PYTHON) here. Install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "npk: needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "npk: $(PYTHON) cannot make virtual environments. Install its venv module (Debian: apt install python3-venv)." >&2; exit 1; }

.venv/.installed-demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "npk: installing into .venv (once; PyTorch is large, this takes minutes)"
	@$(PIP) install -qq -e '.[demo]' -c constraints.txt
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "npk: installing into .venv, with the tools for development (once; this takes minutes)"
	@$(PIP) install -qq -e '.[dev,demo]' -c constraints.txt
	@touch $@ .venv/.installed-demo

.venv/.installed-notebooks: .venv/.installed-dev
	@$(PIP) install -qq -e '.[notebooks]' -c constraints.txt
	@touch $@
