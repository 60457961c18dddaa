# Everything here works on a bare machine that has Python 3.11 or newer and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
LOCK = $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
  --python-version 3.11 --quiet

.PHONY: help install demo compose-demo cluster test test-docker check bench clean lock

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv installs the locked stack in seconds; it is itself installed by pip, once.
$(STAMP): deploy/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Isthmus needs Python 3.11 or newer: set PYTHON=python3.x"; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/uv.lock.txt
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r deploy/requirements.lock
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP)  ## make the environment that everything below runs in

demo: $(STAMP)  ## two zones train one model through guarded borders (under three minutes, no Docker)
	@$(BIN)/isthmus demo $(DEMO_ARGS)

compose-demo:  ## the same demo in containers, each site in networks of its own (needs Docker with Compose v2)
	@deploy/compose-demo.sh

test: $(STAMP)  ## all tests but those in containers; without Ray, an S3 server or tcpdump theirs are skipped
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(TEST_ARGS)

cluster: $(STAMP)  ## add Ray to the environment
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r deploy/ray.lock

test-docker: $(STAMP)  ## the tests in containers (needs Docker with Compose v2)
	@$(BIN)/python -m pytest -m docker $(TEST_ARGS)

check: $(STAMP)  ## style, types, import walls
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)  ## measure rounds, counting, answers, private training, storage and cluster as ratios to limits or peers in the same run
	@$(BIN)/python tests/bench/run.py
	@$(BIN)/python tests/bench/counting.py
	@$(BIN)/python tests/bench/release.py
	@$(BIN)/python tests/bench/headline.py
	@$(BIN)/python tests/bench/private.py
	@$(BIN)/python tests/bench/storage.py
	@$(BIN)/python tests/bench/cluster.py

lock: $(STAMP)  ## resolve the dependencies again
	@$(LOCK) --extra site --group dev pyproject.toml -o deploy/requirements.lock
	@$(LOCK) --extra site --extra ray --group dev --constraint deploy/requirements.lock pyproject.toml -o deploy/ray.lock
	@deploy/image/lock.sh

clean:  ## remove what was made
	rm -rf $(VENV) .isthmus .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	rm -rf demo-report.json demo-evidence demo-wire.pcap roots.json bench-*.json
