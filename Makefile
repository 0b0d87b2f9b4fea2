# make demo   transcribe a sample through the real service
# make test   the fast tests
# make help   everything else

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc)
VLLM_VENV ?= .venv-vllm
REFERENCE_VENV ?= .venv-reference
IMAGE_EXTRAS := otel page postgres speakers
BIN := $(VENV)/bin
DEV := $(VENV)/dev.stamp $(VENV)/model.stamp

# A test run starts some hundred Pythons, and without byte code each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\#.*/\1/p' $(MAKEFILE_LIST))

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/model.stamp  ## start the service, transcribe a sample, show SRT and word times
	$(BIN)/python scripts/demo.py

serve: $(VENV)/model.stamp  ## start the service on port 8000
	$(BIN)/python server.py

test: $(DEV)  ## the fast tests: no network, no GPU
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-laws: $(DEV)  ## the property tests with a thousand examples each
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -n $(JOBS) -m "hypothesis and not vllm" --timeout 1200

test-slow: $(DEV)  ## long fuzzing and large uploads
	$(BIN)/python -m pytest -m "slow and not kill" --timeout 1200

test-postgres: $(DEV)  ## jobs on a real Postgres (Debian: apt-get install postgresql)
	$(BIN)/python -m pytest tests/service/jobs/test_store.py tests/service/jobs/test_migrations.py tests/service/jobs/test_kill.py \
	  tests/service/access/test_shared_limits.py \
	  -m "not kill" -k postgres -rs

test-servers: $(DEV)  ## two servers, one Postgres, one folder, in network namespaces (root; Debian: postgresql, gcc)
	$(BIN)/python -m pytest -m servers tests/servers -rs --timeout 1200

test-kubernetes: .venv-kubernetes/stamp  ## the manifests against the schemas of three versions of Kubernetes
	for version in 1.27 1.31 1.37; do .venv-kubernetes/bin/kubernetes-validate --strict -k $$version \
	  $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml)) || exit 1; done

.venv-kubernetes/stamp:
	$(MAKE) --no-print-directory VENV=.venv-kubernetes .venv-kubernetes/bin/python
	.venv-kubernetes/bin/python -m pip install --quiet --disable-pip-version-check 'kubernetes-validate>=1.37,<2'
	touch $@

test-proxies: $(DEV)  ## the examples of nginx and Caddy in front of a real server (Debian: nginx, caddy, openssl)
	$(BIN)/python -m pytest -m proxies tests/deploy -rs

test-kill: $(DEV)  ## 50 kills of server and worker, 51 with Postgres too: ten minutes
	$(BIN)/python -m pytest tests/service/jobs/test_kill.py -m kill --timeout 1200 -s

test-chaos: $(DEV)  ## kill any process, fill the disk, take descriptors, delete folders: 20 minutes
	$(BIN)/python -m pytest tests/service/test_chaos.py -m kill --timeout 1200 -s

test-security: $(DEV)  ## what docs/security.md promises, with thousands of requests by schemathesis
	$(BIN)/python -m pytest -m "not kill" tests/service/test_security.py tests/service/test_schema_fuzz.py tests/service/http \
	  tests/service/jobs/test_webhooks.py tests/service/access tests/service/uploads/test_routes.py --timeout 1200

test-vllm: $(DEV) $(VLLM_VENV)/stamp  ## real vLLM on the CPU, with random weights (tests/vllm/README.md)
	VLLM_TEST_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest tests/vllm -m vllm --durations 15

test-reference: $(DEV) $(VLLM_VENV)/stamp $(REFERENCE_VENV)/stamp  ## vLLM and our client against transformers (tests/vllm/README.md)
	VLLM_TEST_PYTHON=$(abspath $(VLLM_VENV))/bin/python REFERENCE_TEST_PYTHON=$(abspath $(REFERENCE_VENV))/bin/python \
	  $(BIN)/python -m pytest tests/vllm/test_reference.py -m reference -s

test-ctc: .venv-ctc/ctc.stamp  ## the CTC aligner, in an environment of its own with torch for CPUs
	.venv-ctc/bin/python -m pytest tests/align/ctc/test_aligner.py

test-batch: .venv-batch/batch.stamp  ## asr batch on a local Ray cluster, in a separate environment
	.venv-batch/bin/python -m pytest tests/batch -m batch --ignore tests/batch/test_cluster.py

test-batch-cluster: .venv-batch/batch.stamp  ## two hosts in network namespaces, 20 kills; as root, 20 minutes
	.venv-batch/bin/python -m pytest tests/batch/test_cluster.py -m batch -s

.venv-batch/batch.stamp: requirements.lock pyproject.toml
	$(MAKE) VENV=.venv-batch runtime
	.venv-batch/bin/python -m pip install --quiet --disable-pip-version-check \
	  'ray[data]>=2.60,<3' 'fsspec[http]>=2025.3' 'pytest>=8.3,<10' 'pytest-timeout>=2.3,<3' 'hypothesis>=6.100,<7'
	touch $@

test-openapi: $(DEV) .venv-openapi/stamp  ## a client that is generated from our OpenAPI document
	$(BIN)/python -m pytest -m slow tests/service/test_openapi_client.py

.venv-openapi/stamp:
	$(MAKE) --no-print-directory VENV=.venv-openapi .venv-openapi/bin/python
	.venv-openapi/bin/python -m pip install --quiet --disable-pip-version-check 'openapi-python-client>=0.24,<1'
	touch $@

test-tus-js: $(DEV) build/tus-js/node_modules  ## uploads by the client that browsers use (needs node and npm)
	$(BIN)/python -m pytest -m slow tests/service/uploads/test_routes.py

test-clients: $(DEV)  ## real client packages at a real server, each in its own environment (needs the registries)
	$(BIN)/python -m pytest tests/clients -m "clients or not slow" -rs

test-page: .venv-page/stamp build/axe/node_modules  ## the web page in a real Chromium (Debian: apt-get install chromium)
	.venv-page/bin/python -m pytest -m page tests/page

.venv-page/stamp: requirements-dev.lock pyproject.toml
	$(MAKE) --no-print-directory VENV=.venv-page .venv-page/dev.stamp
	.venv-page/bin/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.50,<2'
	touch $@

build/axe/node_modules:
	npm install --prefix build/axe --no-audit --no-fund axe-core@4.14.1

build/tus-js/node_modules:
	npm install --prefix build/tus-js --no-audit --no-fund tus-js-client@4.3.1

lint: $(VENV)/dev.stamp  ## style, import directions, Dockerfiles
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile deploy/vllm.Dockerfile

types: $(VENV)/dev.stamp  ## mypy, strict
	$(BIN)/mypy

check: lint types test  ## what CI runs

bench: $(DEV)  ## throughput and memory; results go to benchmarks/results
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.moonshine
	$(BIN)/python -m benchmarks.align

bench-floods: $(DEV)  ## latency and memory while one client floods the service
	$(BIN)/python -m benchmarks.floods

first-hour: $(VENV)/dev.stamp  ## measure a server with real weights (docs/first-hour.md)
	@test -n "$(SERVER)" -a -n "$(REFERENCES)" -a -n "$(OUT)" || \
	  { echo "make first-hour SERVER=http://gpu:8000 REFERENCES=folder OUT=folder [OPTIONS=...]"; exit 2; }
	$(BIN)/python -m benchmarks.first_hour --server "$(SERVER)" --references "$(REFERENCES)" --out "$(OUT)" $(OPTIONS)

samples: $(VENV)/dev.stamp  ## make samples/ again (needs Debian's festival, see samples/README.md)
	$(BIN)/python samples/generate.py --out samples

dist: build/tools/stamp  ## wheel and sdist in dist/, tried in an empty environment
	$(BIN)/python scripts/distribution.py

sbom: build/sbom/stamp requirements-image.lock  ## dist/sbom.cdx.json: the packages of the image, as CycloneDX
	mkdir -p dist
	build/sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
	  --output-format JSON --output-file dist/sbom.cdx.json requirements-image.lock

test-image:  ## build the image without Docker and run it (root; Debian: buildah debootstrap bubblewrap)
	$(PYTHON) scripts/image.py

docs: $(VENV)/runtime.stamp  ## write what is generated: the table of settings, the JSON Schema
	$(BIN)/python scripts/docs.py

lock: $(VENV)/dev.stamp  ## pin everything that pyproject.toml allows
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --extra speakers pyproject.toml -o requirements.lock
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" requirements-build.in -o requirements-build.lock
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --extra dev --extra speakers pyproject.toml \
	  -c requirements.lock -o requirements-dev.lock
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" $(IMAGE_EXTRAS:%=--extra %) pyproject.toml \
	  -c requirements-dev.lock -o requirements-image.lock

lock-vllm: $(VENV)/dev.stamp  ## pin vLLM for CPUs together with the service (tests/vllm/README.md)
	$(BIN)/python -m uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock-vllm" \
	  --overrides tests/vllm/overrides.txt pyproject.toml tests/vllm/requirements.in \
	  -o tests/vllm/requirements.lock

runtime: $(VENV)/runtime.stamp  ## the environment of the service alone (the Dockerfile calls this)

model: $(VENV)/model.stamp  ## the embedded recogniser, 44 MB (the Dockerfile calls this)

speakers: $(VENV)/speakers.stamp  ## the speaker model, 28 MB

clean:  ## remove environments and caches
	rm -rf .venv .venv-* build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# A Debian without python3-venv has no ensurepip; virtualenv brings its own pip.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV) && \
	  $(PYTHON) -m pip install --quiet --target build/virtualenv 'virtualenv>=20.26,<22' && \
	  PYTHONPATH=build/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); }

# What builds the package lies beside the environment and is not installed into it.
build/tools/stamp: requirements-build.lock | $(BIN)/python
	rm -rf build/tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --target build/tools \
	  -r requirements-build.lock
	touch $@

$(VENV)/runtime.stamp: requirements.lock pyproject.toml build/tools/stamp | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	PYTHONPATH=build/tools $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation -e .
	touch $@

$(VENV)/model.stamp: asr/engines/moonshine/folder.py asr/engines/moonshine/install.py asr/wheels.py $(VENV)/runtime.stamp
	$(BIN)/asr models install
	touch $@

$(VENV)/speakers.stamp: asr/speakers/campplus.py asr/speakers/install.py asr/wheels.py $(VENV)/runtime.stamp
	$(BIN)/asr speakers install
	touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

build/sbom/stamp: | $(BIN)/python
	$(MAKE) --no-print-directory VENV=build/sbom build/sbom/bin/python
	build/sbom/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8'
	touch $@

# No hashes: torch for CPUs comes from another index than the rest, or from a folder of wheels.
$(VLLM_VENV)/stamp: tests/vllm/requirements.lock pyproject.toml
	$(MAKE) --no-print-directory VENV=$(VLLM_VENV) $(VLLM_VENV)/bin/python build/tools/stamp
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/vllm/requirements.lock
	PYTHONPATH=build/tools $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation -e .
	touch $@

$(REFERENCE_VENV)/stamp: tests/vllm/requirements-reference.txt
	$(MAKE) --no-print-directory VENV=$(REFERENCE_VENV) $(REFERENCE_VENV)/bin/python
	$(REFERENCE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/vllm/requirements-reference.txt
	touch $@

# torch's builds for CPUs are named 2.13.0+cpu, which pip prefers to 2.13.0 where it finds one.
.venv-ctc/ctc.stamp: requirements.lock pyproject.toml
	$(MAKE) VENV=.venv-ctc runtime
	.venv-ctc/bin/python -m pip install --quiet --disable-pip-version-check \
	  'torch>=2.13,<2.14' 'transformers>=5,<6' 'pytest>=8.3,<10' 'pytest-timeout>=2.3,<3' 'hypothesis>=6.100,<7'
	touch $@
