PYTHON ?= python3
# The version that is tested. TORCH takes another, with options of pip if need be: on Linux the
# default of PyPI brings CUDA with it, so a GPU machine may say `make demo TORCH=torch`.
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP = $(@D)/bin/python -m pip install -q --disable-pip-version-check

demo: .venv/.ready
	$(BIN)/python tools/demo.py

# First what decides most on the maintained fork, then everything on OpenMMLab's own releases, by two
# processes of one thread each.
test: export OMP_NUM_THREADS = 1
test: .venv/.ready .venv-onedl/.ready
	.venv-onedl/bin/python -m pytest -q -n 2 -m smoke
	$(BIN)/python -m pytest -q -n 2

# PLW1514: text files are UTF-8, also on Windows, whose default is another.
lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff check --preview --select PLW1514 mmseg_ltmi tools examples studies setup.py
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed_user.py
	$(BIN)/codespell
	$(BIN)/python .ci/check_docs.py

# The guides and the reference as a site, into site/. A warning is an error.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Wheel and source distribution, into dist/.
dist: .venv/.lint
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

# torch first, so that nothing else chooses its build; the last step has all it needs in place.
.venv/.ready: EXTRA := lite
.venv-onedl/.ready: EXTRA := onedl
.venv/.ready .venv-onedl/.ready: setup.py $(wildcard requirements/*.txt)
	$(PYTHON) -m venv $(@D)
	$(PIP) $(TORCH) -r requirements/build.txt
	$(PIP) -r requirements/$(EXTRA).txt -r requirements/tests.txt
	$(PIP) --no-build-isolation -e '.[$(EXTRA),test]'
	$(if $(filter lite,$(EXTRA)),$(PIP) --no-deps -r requirements/mask.txt)
	touch $@

.venv/.lint: .venv/.ready
	$(PIP) -r requirements/dev.txt
	touch $@

# After .lint, since pip changes one environment at a time.
.venv/.docs: .venv/.lint
	$(PIP) -r requirements/docs.txt
	touch $@

.PHONY: demo test lint docs dist
