# Everything in one place: `make demo` and `make test` do all set-up themselves and repeat none of it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes; a module's tests stay in one of them, so that its costly fixtures are made once.
PYTEST2 := $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)

# No tool asks the network for updates, sends analytics, or draws on an inherited interpreter; bytecode is kept, since
# commands and tests start hundreds of processes.
export NO_ALBUMENTATIONS_UPDATE := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo up test test-fast test-slow lint bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv with the tested versions (requirements.lock)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	  || { echo "GPTFace needs Python 3.11 or 3.12; $(PYTHON) is another. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "Setting up $(VENV) (once; a few minutes, about 7 GB) ..."
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: setup  ## the whole way on a small web of drawn faces: crawl, curate, train, evaluate, edit, report
	$(BIN)/gptface demo

up: setup  ## Prefect server, work pool, deployments and a worker on this machine
	$(BIN)/gptface up

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## ruff, mypy and all tests but the slow ones (under 15 minutes)
	$(PYTEST2) -m "not slow"

test-fast: setup  ## unit tests alone (under 90 seconds)
	$(PYTEST2) -m "not slow and not e2e and not realdata"

test-slow: setup  ## chaos, PostgreSQL, Ray, nights (under 60 minutes)
	$(BIN)/pytest -q -m slow

# Not real_data and what it needs: hours on a CPU, and they take arguments (docs/results.md).
bench: setup  ## every benchmark in bench/, each with one JSON line last
	@for b in $$(ls bench/*.py | xargs -n1 basename | sed 's/\.py$$//' | grep -vE '^(_|corpus|contrastive|real_data)'); do \
	  echo "== bench.$$b"; $(BIN)/python -m bench.$$b || exit 1; done

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache gptface-data build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
