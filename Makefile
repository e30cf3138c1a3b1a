# `make` lists the targets. All that a target installs lands in .venv or .venv-e2e.
.DEFAULT_GOAL := help
PYTHON ?= python3
WORKERS ?= 2
# renovate: datasource=pypi depName=uv
UV := 0.13.9
FETCHED := $(or $(E2E_CACHE),$(HOME)/.cache/cookiecutter-gitops-observability)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: .venv/.ready ## The bake tier: Python 3.10 or later, make and git are enough (about two minutes)
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadgroup -v --no-header $(ARGS)

.PHONY: lint
lint: .venv/.ready .venv-e2e/.ready ## Ruff and mypy over hooks and tests, yamllint over the answers
	.venv/bin/ruff check --no-cache .
	.venv/bin/ruff format --no-cache --check .
	.venv-e2e/bin/mypy
	.venv/bin/yamllint --strict .

GITOPS_PROGRAMS := etcd kubernetes kwok helm registry crane kubeseal argocd versitygw fake-gcs-server
NODE_PROGRAMS := etcd kubelet policy-agent coredns registry crane thanos alertmanager argocd

.PHONY: programs
programs: .venv-e2e/.ready ## Build beforehand what the last two suites run (needs Go)
	.venv-e2e/bin/python -m tests.e2e.toolchain $(sort $(GITOPS_PROGRAMS) $(NODE_PROGRAMS)) >/dev/null

.PHONY: e2e
e2e: .venv-e2e/.ready ## The data path on real collector and Thanos (needs Go; the first run builds them)
	.venv-e2e/bin/python -m tests.e2e.datapath.prepare >/dev/null
	.venv-e2e/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -v --no-header tests/e2e/datapath $(ARGS)

.PHONY: e2e-gitops
e2e-gitops: .venv-e2e/.ready ## GitOps on a real API server and Argo CD (needs Go; the first run builds them)
	.venv-e2e/bin/python -m tests.e2e.toolchain $(GITOPS_PROGRAMS) >/dev/null
	.venv-e2e/bin/python -m pytest -v --no-header tests/e2e/gitops $(ARGS)

.PHONY: control-plane
control-plane: .venv-e2e/.ready ## Start that API server by hand, print its kubeconfig and wait
	.venv-e2e/bin/python -m tests.e2e.gitops.control_plane

.PHONY: e2e-cluster
e2e-cluster: .venv-e2e/.ready ## The platform in real containers on real nodes (needs root, Go and a few packages, which it names)
	.venv-e2e/bin/python -m tests.e2e.toolchain kubernetes helm $(if $(E2E_KUBECONFIG),,$(NODE_PROGRAMS)) >/dev/null
	.venv-e2e/bin/python -m pytest -v --no-header tests/e2e/cluster $(ARGS)

NODES ?= 1
.PHONY: node
node: .venv-e2e/.ready ## Start a cluster of NODES (1) real nodes by hand, print its kubeconfig and wait (needs root)
	.venv-e2e/bin/python -m tests.e2e.cluster.cluster $(NODES)

.PHONY: bench
bench: .venv-e2e/.ready ## Measure the data path and, as root, the first minutes in containers; writes docs/benchmarks/
	.venv-e2e/bin/python -m tests.e2e.datapath.prepare >/dev/null
	.venv-e2e/bin/python -m tests.e2e.datapath.bench
	.venv-e2e/bin/python -m tests.e2e.cluster.bench

.PHONY: pictures
pictures: .venv-e2e/.ready ## Draw the terminal pictures of the README from real runs; writes docs/pictures/*.svg
	.venv-e2e/bin/python -m tests.e2e.datapath.prepare >/dev/null
	.venv-e2e/bin/python -m tests.e2e.datapath.pictures

.PHONY: example
example: .venv/.ready ## Bake the default answers into example/, which a test holds to them
	.venv/bin/python -m tests.example

.PHONY: charts
charts: .venv/.ready ## Fetch the upstream charts that platforms pin (needs helm and the network); UPSTREAM_CHARTS is printed
	.venv/bin/python -m tests.fetch charts $(FETCHED)/charts

.PHONY: providers
providers: .venv/.ready ## Fetch the Terraform provider (needs terraform and the network); TF_PLUGIN_MIRROR is printed
	.venv/bin/python -m tests.fetch providers $(FETCHED)/providers

.PHONY: requirements
requirements: .venv/.ready ## Pin the newest versions of what requirements-test.in names
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-header --no-emit-index-url \
	  --output-file requirements-test.txt requirements-test.in
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-header --no-emit-index-url \
	  --output-file requirements-e2e.txt requirements-e2e.in

.PHONY: clean
clean: ## Remove what the targets made (the toolchain cache stays)
	rm -rf .venv .venv-e2e .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready: requirements-test.txt
.venv-e2e/.ready: requirements-test.txt requirements-e2e.txt
.venv/.ready .venv-e2e/.ready:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and f"Python 3.10 or later is needed; $(PYTHON) is {v[0]}.{v[1]} (PYTHON=python3.12 make …)")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python $(addprefix -r ,$^)
	touch $@
