# Everything runs in .venv, which the first target that needs it sets up. Needs Python 3.11, 3.12 or 3.13, and make.
PYTHON ?= $(shell for one in python3.11 python3.12 python3.13; do command -v $$one && break; done)
VERSION := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
NEED_PYTHON = $(if $(VERSION),,$(error no Python 3.11, 3.12 or 3.13 found: install one, or name it, as in `make $(MAKECMDGOALS) PYTHON=/opt/bin/python3.13`))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One more than there are cores, as tests also wait for browsers, servers and killed processes; each worker imports all.
WORKERS := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
SUDO := $(shell test "$$(id -u)" = 0 || command -v sudo)
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test test-quick test-slow test-size test-official system-deps format lint types bench bench-data bench-quick replication table2 evidence evidence-quick docs clean
demo: $(STAMP)
	$(BIN)/fairhuman demo runs/demo

test: system-deps $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

# For the inner loop: the mathematics, regions, records, settings and one training step, in about a minute.
QUICK := tests/regions tests/stats tests/utils tests/data/samples tests/data/sources tests/data/pictures \
  tests/fairness/test_solver.py tests/fairness/test_strategies.py tests/fairness/test_backward.py \
  tests/train/test_step.py tests/test_config.py tests/test_record.py tests/test_project.py tests/test_public_imports.py
test-quick: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pytest -n $(WORKERS) $(QUICK)

test-slow: $(STAMP)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m slow --timeout 3600

# SDXL's true size with random weights: a quarter of an hour on two cores, at most 16 GB of memory, 30 GB of disk in
# FAIRHUMAN_SIZE_FOLDER (runs/size by default). The same again uses what is there.
test-size: $(STAMP)
	$(BIN)/pytest -v -m size tests/size

# The paper's confidences, and our detectors against MediaPipe's: in an environment with MediaPipe, so on Python 3.11 or
# 3.12. Versions are those of constraints.txt, but for those that MediaPipe holds down.
OFFICIAL := .venv-official
test-official: $(OFFICIAL)/.installed
	$(OFFICIAL)/bin/pytest -m '' $$(grep -rl --include='test_*.py' need_mediapipe tests)
	$(OFFICIAL)/bin/pytest tests/detect tests/evaluate tests/test_begun.py

$(OFFICIAL)/.installed: pyproject.toml constraints.txt constraints-official.txt
	$(NEED_PYTHON)test -x $(OFFICIAL)/bin/pip || $(PYTHON) -m venv --clear $(OFFICIAL)
	awk -F== 'NR == FNR { own[$$1]; print; next } !($$1 in own)' constraints-official.txt constraints.txt > $(OFFICIAL)/constraints.txt
	$(OFFICIAL)/bin/pip install -q --disable-pip-version-check -c $(OFFICIAL)/constraints.txt -e '.[dev,official]'
	touch $@

# A browser and a database for the tests of the web pages, by apt; without them those tests skip, where CI is set they fail.
system-deps:
	@missing="$$(command -v chromium > /dev/null || echo chromium) $$(ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || echo postgresql)"; \
	  test "$$missing" = " " || ! command -v apt-get > /dev/null || { $(SUDO) apt-get update -qq; \
	  for one in $$missing; do $(SUDO) apt-get install -y -qq --no-install-recommends $$one > /dev/null || { \
	  echo "$$one can't be installed: the tests that need it are skipped" >&2; test -z "$$CI" || exit 1; }; done; }

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/solver.py
	$(BIN)/python benchmarks/fairness.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/amortised.py --parts cost

bench-data: $(STAMP)
	$(BIN)/python benchmarks/data.py

# Has something become slower? Five minutes.
bench-quick: $(STAMP)
	$(BIN)/python benchmarks/guard.py

# The protocol of docs/evidence.md at tiny size: measures nothing.
evidence-quick: $(STAMP)
	$(BIN)/fairhuman compare recipes/evidence-quick.yaml

# These three take hours; the same again goes on where it was stopped.
evidence: $(STAMP)
	$(BIN)/fairhuman compare recipes/evidence-balancers.yaml

replication: $(STAMP)
	$(BIN)/fairhuman compare recipes/compare-replication.yaml

table2: $(OFFICIAL)/.installed
	$(OFFICIAL)/bin/fairhuman reproduce recipes/table2-small.yaml

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(OFFICIAL) build dist site runs *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache

# An environment of another Python is made anew: `make test PYTHON=python3.13`.
$(STAMP): pyproject.toml constraints.txt $(VENV)/.python-$(VERSION)
	@echo "$(VENV): Python $(VERSION)"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.python-$(VERSION):
	$(NEED_PYTHON)test -x $(BIN)/python$(VERSION) && test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	touch $@
