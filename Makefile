# Everything that is done with this repository, for people and for machines alike.
# `make verify` only reads; `make fix` and `make proto` write.

PYTHON ?= python3.11
VENV   ?= .venv
PORT   ?= 7400
DATA   ?= .agni
BIN     = $(VENV)/bin

# One place for compiled Rust, without incremental copies: node, tests and lints share it.
export CARGO_TARGET_DIR ?= $(CURDIR)/node/target
export CARGO_INCREMENTAL ?= 0
CARGO = cd node && cargo

.DEFAULT_GOAL := help
.PHONY: help setup run node test test-rust test-python verify fix proto proto-check docs docs-check bench soak chaos sim planted-bugs lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The environment is made anew only when what it is made from has changed.
$(VENV)/.stamp: requirements/dev.txt pyproject.toml operator/pyproject.toml
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "$(PYTHON) is needed (or PYTHON=python3.12)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e ./operator
	@touch $@

# Cargo knows what has changed; asking it costs a second.
node: $(VENV)/.stamp ## compile the engine (release) into the environment
	@command -v cargo >/dev/null || { echo "cargo is needed: see https://rustup.rs"; exit 1; }
	cd node && PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" \
	  $(CURDIR)/$(BIN)/maturin develop --release --locked --quiet

setup: node ## make the environment and compile the engine
	@echo "ready: $(BIN)/agni-node and $(BIN)/agnictl"

run: node ## start three nodes (PORT=7400 DATA=.agni INSECURE=), register a gateway, find it again
	@$(BIN)/python scripts/run_demo.py --port $(PORT) --data $(DATA) $(if $(INSECURE),--insecure-dev)

test: test-rust test-python ## every test, Rust and Python

# agni-py has no Rust tests: Python tests it.
test-rust: node
	$(CARGO) test --release --locked --workspace --exclude agni-py

test-python: node
	$(BIN)/python -m pytest

verify: $(VENV)/.stamp ## lint, types, contracts, generated files: reads only
	$(BIN)/python scripts/verify.py

fix: $(VENV)/.stamp ## format and repair what can be repaired by a machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(CARGO) fmt

proto: $(VENV)/.stamp ## generate the Python messages from proto/
	$(BIN)/python scripts/gen_proto.py

proto-check: $(VENV)/.stamp ## prove that they are current
	$(BIN)/python scripts/gen_proto.py --check

docs: $(VENV)/.stamp ## write the generated parts of docs/
	$(BIN)/python scripts/gen_docs.py

docs-check: $(VENV)/.stamp
	$(BIN)/python scripts/gen_docs.py --check

# Half an hour: both servers alternate. BENCH_ARGS="--rounds 1 --seconds 1" for a first look.
bench: node bench-run ## measure against etcd and against this machine (docs/benchmarks.md)

soak: node bench-tools ## the fault tests in full size: 200 kills, 100,000 leases, 2,000 watchers, 10,000,000 frames, a backup of 1,000,000 records
	AGNI_SOAK=1 AGNI_FUZZ_SECONDS=300 $(BIN)/python -m pytest -s tests/faults tests/fuzz tests/backup
	$(CARGO) test --release --locked -p agni-server --lib -- --ignored --nocapture by_the_million

# Root, iproute2 and nftables: each node gets a host of its own. A report with a picture each.
CHAOS ?= cluster disks five_nodes network one_way replacing scaling stalls
chaos: node ## three nodes under kills, pauses, cuts and load, judged, in full size (an hour)
	AGNI_CHAOS=1 $(BIN)/python -m pytest -s -o timeout=3600 $(CHAOS:%=tests/chaos/test_%.py)

# SEED=7 repeats one run, with TRACE=1 event by event; FROM=1 COUNT=10000 NODES=5 tries many.
NODES ?= 3
FROM  ?= 1
COUNT ?= 10000
sim: ## simulate clusters under faults (SEED=, or FROM= and COUNT=; NODES=)
	$(CARGO) run --release --locked --quiet -p agni-sim -- --nodes $(NODES) $(if $(TRACE),--trace) \
	  $(if $(SEED),--seed $(SEED),--from $(FROM) --count $(COUNT))

# One of the names in docs/reliability.md, or all of them.
BUG ?= finds_ a_replica_that_differs_is_replaced
planted-bugs: ## plant each of the classic mistakes into the engine: the simulator must find it (BUG=)
	$(CARGO) test --release --locked -p agni-sim --test seeds -- $(BUG)

BENCH_PYTHON = $(BIN)/python
include bench/bench.mk
include e2e/e2e.mk

lock: $(VENV)/.stamp ## choose the pinned Python packages anew; no address is written
	$(BIN)/python -m piptools compile --upgrade --extra cli --extra dev --generate-hashes --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-header --strip-extras --quiet \
	  --output-file requirements/dev.txt pyproject.toml
