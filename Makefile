# make install, then .venv/bin/sparring; make help says the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --no-input --retries 10 --constraint constraints.txt
NEEDS := pyproject.toml constraints.txt

# A connection that breaks in the middle of a package is more than pip's own retries mend: the whole command once more.
define pip_install
$(PIP) --editable "$(1)" || { echo "Once more."; sleep 5; $(PIP) --editable "$(1)"; }
endef

# One thread for each process: results do not depend on the machine, and processes do not fight for cores.
export OMP_NUM_THREADS ?= 1

# Of the tests. One of them waits for Ray most of the time.
PROCESSES ?= 2

.PHONY: help install lint test demo docs bench peers clean
.DEFAULT_GOAL := help

help:
	@echo "make install   the command $(BIN)/sparring; PYTHON=python3.12 chooses another Python"
	@echo "make demo      trains a plain and a robust classifier of digits, and attacks both"
	@echo "make test      style, types, layers and tests"
	@echo "make lint      style, types and layers alone"
	@echo "make bench     what attacks, trainings, updates, data and start-up cost, over the least they can; bench.json"
	@echo "make peers     our attacks against other libraries', which it installs: a quarter of an hour"
	@echo "make docs      the documentation, into site/"
	@echo "make clean     removes what make has made, but no runs"

install: $(VENV)/.installed
	@echo "$(BIN)/sparring is installed."

demo: $(VENV)/.installed
	$(BIN)/sparring demo

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadscope --no-loadscope-reorder

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks --json bench.json

# Two of the libraries ask for packages that cannot be had any more, and work without them: benchmarks/rivals.py.
peers: $(VENV)/.installed-peers
	$(PIP) --no-deps adv-lib torchattacks
	$(BIN)/python -m benchmarks peers

# The variables silence advertisements of successors.
docs: $(VENV)/.installed-docs
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

clean:
	rm -rf $(VENV) site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp is touched when its installation is complete: one that was cut short is done again, a finished one never.
$(VENV)/.installed: $(VENV)/.made $(NEEDS)
	@echo "Installing into $(VENV): some minutes the first time."
	$(call pip_install,.)
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	@echo "Installing the tools for $*."
	$(call pip_install,.[$*])
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
		echo "Sparring needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=python3.12 names another." >&2; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" || { \
		echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
