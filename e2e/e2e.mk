# Included by the Makefile: images, and tests on a real Kubernetes (docs/e2e.md).
TIER        ?= quick
NODES_E2E   ?= 3
E2E_PYTEST  ?=
E2E_PATH     = e2e:images:e2e/tests$(if $(PYTHONPATH),:$(PYTHONPATH))
E2E          = PYTHONPATH=$(E2E_PATH) $(BIN)/python
WHEELS       = build/images/wheels
# What setuptools copies, and would put into the next wheel although its source is gone.
STALE        = build/lib build/bdist.* operator/build

.PHONY: images wheels e2e e2e-quick e2e-failpoints e2e-build e2e-cluster-up e2e-cluster-down go-is-there

wheels: $(VENV)/.stamp ## build the wheels that images are made of
	rm -rf $(WHEELS) $(STALE) && mkdir -p $(WHEELS)
	cd node && PATH="$(CURDIR)/$(BIN):$$PATH" $(CURDIR)/$(BIN)/maturin build --release --locked \
	  --quiet --compatibility linux --out $(CURDIR)/$(WHEELS)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --wheel-dir $(WHEELS) . ./operator
	rm -rf $(STALE)

images: wheels ## write build/images/node.tar and operator.tar: OCI archives, without a registry
	$(E2E) -m agni_images --wheels $(WHEELS) node operator

e2e-build: go-is-there $(VENV)/.stamp ## compile the Kubernetes that the tests run on (TIER=quick or full)
	$(E2E) -m agni_e2e build $(TIER)

go-is-there:
	@command -v go >/dev/null || { echo "go is needed for the tests on Kubernetes: see https://go.dev/dl"; exit 1; }

e2e-quick: go-is-there $(VENV)/.stamp ## tests on a real control plane with played machines (go is needed)
	$(E2E) -m agni_e2e build quick
	$(E2E) -m pytest -o timeout=600 -m "not full" $(E2E_PYTEST) e2e/tests

e2e-failpoints: go-is-there $(VENV)/.stamp ## the operator killed before each of its actions, not only before some
	$(E2E) -m agni_e2e build quick
	E2E_FAILPOINTS=all $(E2E) -m pytest -s -o timeout=3600 $(E2E_PYTEST) e2e/tests/test_operator_failpoints.py

# One tier after the other: a cluster of each at the same time would only make both slow. E2E_PYTEST may
# leave nothing of a tier.
NONE_FOUND   = 5
e2e: go-is-there images ## tests on three machines in three zones that run pods (root and go are needed)
	$(E2E) -m agni_e2e build full
	@failed=0; for tier in "not full" full; do \
	  $(E2E) -m pytest -o timeout=1800 -m "$$tier" $(E2E_PYTEST) e2e/tests; code=$$?; \
	  [ $$code = 0 ] || [ $$code = $(NONE_FOUND) ] || failed=1; done; exit $$failed

e2e-cluster-up: go-is-there $(VENV)/.stamp $(if $(filter full,$(TIER)),images) ## a cluster that stays until e2e-cluster-down (TIER=full NODES_E2E=3)
	@$(E2E) -m agni_e2e up $(TIER) $(NODES_E2E)

e2e-cluster-down: $(VENV)/.stamp ## end that cluster
	@$(E2E) -m agni_e2e down
