# One command each, from a bare checkout with python3.11+ and make:
#   make demo    set up, then make a population, register all its pairs, write a report
#   make test    set up, then run the whole test suite
#   make check   set up, then run its quick part (under 3 minutes)
#   make peers   set up, then register with other tools too and compare (minutes; DATA=, SLOW=--slow)
#   make readme  put the figures of benchmarks/results into the README and benchmarks/README

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
PEERS := .venv-peers
DATA ?= ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz

.PHONY: demo test check peers readme lint format clean
.DELETE_ON_ERROR:

# pip, and nothing of the user's environment: the versions are those of constraints.txt
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,itk,dashboard,object]'
	touch $@

demo: .venv/installed
	$(BIN)/cohort synth $(DEMO)/nifti
	PATH="$(CURDIR)/$(BIN):$$PATH" WORKERS=2 workflows/all_pairs.sh $(DEMO)/nifti $(DEMO) \
		--grid 64x72x64@2.5mm

test: lint
	$(BIN)/pytest -n 2 --dist worksteal

check: lint
	$(BIN)/pytest -n 2 --dist worksteal -m 'not slow'

# the other tools live in an environment of their own and are no dependencies
$(PEERS)/installed: benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --requirement benchmarks/peers.txt
	touch $@

peers: .venv/installed $(PEERS)/installed
	$(BIN)/python benchmarks/peers.py $(DATA) $(SLOW)

readme: .venv/installed
	$(BIN)/python benchmarks/readme_table.py

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-s3 $(PEERS) $(DEMO)
