# Included by the Makefile: benchmarks against etcd.
GO ?= go
BENCH_PYTHON ?= $(BIN)/python
BENCH_ARGS ?=

.PHONY: bench-etcd bench-tools bench-run
bench-etcd: build/etcd ## builds the etcd that the benchmark compares with

build/etcd: bench/etcd/go.mod bench/etcd/go.sum
	mkdir -p build
	cd bench/etcd && $(GO) build -o ../../build/etcd go.etcd.io/etcd/server/v3

bench-tools: ## builds the load generators
	$(CARGO) build --release --locked -p agni-bench

bench-run: bench-etcd bench-tools ## measures, and writes docs/benchmarks.md
	PYTHONPATH=bench$(if $(PYTHONPATH),:$(PYTHONPATH)) $(BENCH_PYTHON) -m agnibench \
	    --etcd build/etcd --loadgen $(CARGO_TARGET_DIR)/release/loadgen \
	    --echo $(CARGO_TARGET_DIR)/release/echo --work build \
	    --json bench/results/latest.json --markdown docs/benchmarks.md $(BENCH_ARGS)
