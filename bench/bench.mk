# Included by the Makefile: benchmarks against etcd. PYTHON, CARGO_TARGET_DIR and GO may be given.
GO ?= go
BENCH_PYTHON ?= $(or $(PYTHON),python3)
BENCH_TARGET ?= $(or $(CARGO_TARGET_DIR),node/target)
BENCH_ARGS ?=

.PHONY: bench-etcd bench-tools bench-run
bench-etcd: build/etcd ## builds the etcd that the benchmark compares with

build/etcd: bench/etcd/go.mod bench/etcd/go.sum
	mkdir -p build
	cd bench/etcd && $(GO) build -o ../../build/etcd go.etcd.io/etcd/server/v3

bench-tools: ## builds the load generators
	cd node && cargo build --release --locked -p agni-bench

# Expects the node's Python package to be importable (make setup), in release mode.
bench-run: bench-etcd bench-tools ## measures, and writes docs/benchmarks.md
	PYTHONPATH=bench:src:node/python$(if $(PYTHONPATH),:$(PYTHONPATH)) $(BENCH_PYTHON) -m agnibench \
	    --etcd build/etcd --loadgen $(BENCH_TARGET)/release/loadgen \
	    --echo $(BENCH_TARGET)/release/echo --work build \
	    --json bench/results/latest.json --markdown docs/benchmarks.md $(BENCH_ARGS)
