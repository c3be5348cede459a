PYTHON ?= python3
# The version that is tested. A GPU machine takes its own: make test TORCH=torch
TORCH ?= torch==2.13.0
BIN := .venv/bin

demo: .venv/.ready
	$(BIN)/python tools/demo.py

test: .venv/.ready
	$(BIN)/python -m pytest -q

lint: .venv/.ready
	$(BIN)/pip install -q ruff && $(BIN)/ruff check .

.venv/.ready: setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q '$(TORCH)'
	$(BIN)/pip install -q -e '.[lite,test]'
	touch $@

.PHONY: demo test lint
