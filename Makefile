# make demo   transcribe a sample through the real service
# make test   the fast tests
# make help   everything else

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-postgres test-kill lint types check serve bench samples lock docs runtime clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/runtime.stamp  ## start the service, transcribe a sample, show SRT and word times
	$(BIN)/python scripts/demo.py

serve: $(VENV)/runtime.stamp  ## start the service on port 8000
	$(BIN)/python server.py

test: $(VENV)/dev.stamp  ## the fast tests: no network, no GPU
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(VENV)/dev.stamp  ## long fuzzing and large uploads
	$(BIN)/python -m pytest -m "slow and not kill" --timeout 1200

test-postgres: $(VENV)/dev.stamp  ## jobs on a real Postgres (Debian: apt-get install postgresql)
	$(BIN)/python -m pytest tests/test_job_store.py tests/test_job_kill.py -m "not kill" -k postgres -rs

test-kill: $(VENV)/dev.stamp  ## 50 kills of server and worker, 51 with Postgres too: ten minutes
	$(BIN)/python -m pytest tests/test_job_kill.py -m kill --timeout 1200 -s

lint: $(VENV)/dev.stamp  ## style, import directions, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

types: $(VENV)/dev.stamp  ## mypy, strict
	$(BIN)/mypy

check: lint types test  ## what CI runs

bench: $(VENV)/dev.stamp  ## throughput and memory; results go to benchmarks/results
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.sphinx

samples: $(VENV)/dev.stamp  ## make samples/ again (needs Debian's festival, see samples/README.md)
	$(BIN)/python samples/generate.py --out samples

docs: $(VENV)/runtime.stamp  ## write what is generated: the table of settings, the JSON Schema
	$(BIN)/python scripts/docs.py

lock: $(VENV)/dev.stamp  ## pin everything that pyproject.toml allows
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --extra build pyproject.toml -o requirements.lock
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --extra build --extra dev pyproject.toml \
	  -c requirements.lock -o requirements-dev.lock

runtime: $(VENV)/runtime.stamp  ## the environment of the service alone (the Dockerfile calls this)

clean:  ## remove environments and caches
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# A Debian without python3-venv has no ensurepip; virtualenv brings its own pip.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV) && \
	  $(PYTHON) -m pip install --quiet --target build/virtualenv 'virtualenv>=20.26,<22' && \
	  PYTHONPATH=build/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); }

$(VENV)/runtime.stamp: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@
