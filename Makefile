# On a fresh machine with Python 3.11 or newer and make: `make book` or `make test`.
PYTHON ?= python3
PROFILE ?= laptop
VENV ?= .venv

BIN := $(VENV)/bin
READY := $(VENV)/.installed
# Two processes whose torch threads wait for each other take five to ten times longer.
export OMP_NUM_THREADS = 1

.PHONY: book pdf test clean help
.DELETE_ON_ERROR:

help:
	@echo "make book [PROFILE=laptop]   run every notebook, build the site, print its address"
	@echo "make pdf                     the same, with the book as one PDF linked from the site (needs Chromium)"
	@echo "make test                    run the test suite"
	@echo "make clean                   remove the built site and the executed notebooks"
	@echo "PYTHON=... chooses the Python (3.11 or newer) that the environment is made with."

book: $(READY)
	$(BIN)/python -m erasus_nb run --profile $(PROFILE)
	$(BIN)/python -m erasus_nb book

pdf: $(READY)
	$(BIN)/python -m erasus_nb run --profile $(PROFILE)
	$(BIN)/python -m erasus_nb pdf

# A file's tests share what it trains, so that a whole file goes to one process.
test: $(READY)
	$(BIN)/python -m pytest -n logical --dist loadfile

clean:
	rm -rf _build _runs .pytest_cache

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing requirements.txt; the first time this takes some minutes"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r requirements.txt
	@touch $@
