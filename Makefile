# The commands of the project. `make demo` and `make test` need only Python >= 3.11, git and make.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.ready

# A shared environment (VENV=/some/where) still runs this checkout, not the one it was installed from.
export PYTHONPATH := $(CURDIR)/src

# Container images often disable bytecode files; every process would then recompile PyTorch, timm and SymPy.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint types suite format docs figures bundled runtime clean

demo: $(READY)
	@$(BIN)/python -m refinenet demo --output demo.png

# Types take one core for a minute, so they are checked while the tests run.
test: lint
	@$(MAKE) --no-print-directory --jobs 2 types suite

check: lint types

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy
	$(BIN)/lint-imports

# A file's tests share what they make, so one process runs them all; `tests/conftest.py` puts the longest files first.
suite: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The pages are in docs/_build/html; `make docs BUILDER=linkcheck` checks the links to other sites.
BUILDER ?= html
docs: $(VENV)/.docs-ready
	$(BIN)/python -m sphinx -b $(BUILDER) -W --keep-going docs docs/_build/$(BUILDER)

# Every picture of README and docs, made anew; `make figures FIGURES=--check` compares instead. It trains for some minutes.
FIGURES ?=
figures: $(READY)
	$(BIN)/python docs/figures.py $(FIGURES)

# The bundled models as graphs of OpenVINO, for installations without PyTorch: after a bundled model has changed.
bundled: $(READY)
	$(BIN)/python -m refinenet.export.bundled

# The distribution refinenet-runtime, which needs no PyTorch.
runtime: $(READY)
	$(BIN)/python runtime/write_project.py build/runtime
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist build/runtime

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist docs/_build docs/reference .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Python compiles modules on first import; compiling all 370 MB of packages during installation takes another minute.
$(READY): pyproject.toml
	@echo "Setting up $(VENV): PyTorch is large (up to 5 GB), a few minutes the first time."
	@$(PYTHON) -c "import sys; sys.exit('refinenet needs Python 3.11 or newer, this is ' + sys.version.split()[0] + '; try: make PYTHON=python3.12 $(MAKECMDGOALS)') if sys.version_info < (3, 11) else None"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --no-compile -e ".[dev]"
	@touch $@

$(VENV)/.docs-ready: $(READY)
	@$(BIN)/python -m pip install --disable-pip-version-check -e ".[docs]"
	@touch $@
