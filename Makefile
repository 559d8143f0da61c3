# OpenQCI: the commands of the house. `make up` runs Europe, `make test` tests everything.
# A bare machine needs python3 (with venv), git and make; uv comes from PyPI when it is not there.

UV := $(shell command -v uv 2>/dev/null || echo .tool/bin/uv)
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
BIN := .venv/bin
ARGS ?=
SECONDS ?= 60
PYTEST_ARGS ?=

.PHONY: help setup setup-dev up test lint check sbom conformance simulate torture bench bench-kme bench-distil bench-link bench-space bench-relay docs clean browser

help:
	@echo "make setup   the openqci command in .venv, from the lock file"
	@echo "make up      Europe's network, live on this machine (ARGS='--port-base 15000' ...)"
	@echo "make test    lint, types, import contracts and all tests"
	@echo "make lint    ruff, mypy, import contracts"
	@echo "make check   the same as make lint"
	@echo "make bench   benchmarks, side by side (ARGS=--json for one document each)"
	@echo "make conformance every statement of the standards with its result"
	@echo "make simulate many KMEs with simulated faults (SECONDS=600)"
	@echo "make torture kill -9 of two KMEs under load, then an audit of both (SECONDS=600)"
	@echo "make bench-kme key delivery of two KMEs under load"
	@echo "make bench-relay routes over all Europe, relays over durable nodes"
	@echo "make sbom    the software bill of materials in dist/openqci.cdx.json"
	@echo "make docs    the documentation as a site in site/"
	@echo "make clean   everything that was built; data directories stay"

setup: .venv/.stamp-run
setup-dev: .venv/.stamp-dev

.tool/bin/uv:
	python3 -m venv .tool
	.tool/bin/pip install --quiet --disable-pip-version-check uv

# --inexact: what a developer has installed beside the lock file stays.
.venv/.stamp-run: uv.lock pyproject.toml | $(filter .tool/%,$(UV))
	$(UV) sync --frozen --inexact --no-dev --extra plot --extra kernels --extra postgres --extra hsm --quiet
	@touch $@

.venv/.stamp-dev: uv.lock pyproject.toml | $(filter .tool/%,$(UV))
	$(UV) sync --frozen --inexact --extra plot --extra kernels --extra postgres --extra hsm --quiet
	@touch $@ .venv/.stamp-run

up: setup
	$(BIN)/openqci up --scenario eu27 $(ARGS)

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: lint

# Two workers; tests of one file stay together, because they share a running network.
test: lint browser
	$(BIN)/pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# The tests use a real browser, a real curl and a real PKCS#11 token (SoftHSM2). Where they are missing and we may
# install them, we do.
browser:
	@command -v chromium >/dev/null && command -v curl >/dev/null && command -v softhsm2-util >/dev/null && exit 0; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
	  echo "installing the Debian packages chromium, curl and softhsm2, which the tests use"; \
	  $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium curl softhsm2 >/dev/null; \
	else \
	  echo "make test needs chromium, curl and softhsm2: install them (sudo apt-get install chromium curl softhsm2), then try again" >&2; \
	  exit 1; \
	fi

# Every statement of the standards with its result: make conformance ARGS="etsi014 --json"
conformance: setup-dev
	$(BIN)/python -m tests.conformance.report $(ARGS)

# Many KMEs with simulated faults, seed by seed, two processes: make simulate SECONDS=600
simulate: setup-dev
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation.run --seed $$(($$(date +%s) * 1000)) --runs 1000000 --wall $(SECONDS) $(ARGS) & \
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation.run --seed $$(($$(date +%s) * 1000 + 500000)) --runs 1000000 --wall $(SECONDS) $(ARGS); \
	one=$$?; wait %1; exit $$((one + $$?))

# kill -9 of two KMEs under load, then an audit of both ends: make torture SECONDS=600
# (ARGS='--store postgresql --workers 2': and of their workers)
torture: setup-dev
	$(BIN)/python -m tests.kme.torture --seconds $(SECONDS) $(ARGS)

bench: setup-dev
	@set -e; for script in benchmarks/[!_]*.py; do $(BIN)/python $$script $(ARGS); done

# The peers are fetched for the run alone; PEERS= leaves them out.
PEERS = --with qkdpy --with ldpc
BESIDE_PEERS = $(UV) run --no-sync --quiet $(PEERS) python

# Two KME processes and the load generator (C, built on the spot) on this machine.
bench-kme: setup-dev
	$(BIN)/python benchmarks/kme/delivery.py $(ARGS)

bench-distil: setup-dev
	$(BESIDE_PEERS) benchmarks/cascade.py $(ARGS)
	$(BESIDE_PEERS) benchmarks/ldpc_codes.py $(ARGS)
	$(BIN)/python benchmarks/amplification.py $(ARGS)
	$(BIN)/python benchmarks/blocks.py --start-up --rounds 9 $(ARGS)

# SATQUMA=/path/to/checkout asks SatQuMA in the same run.
bench-link: setup-dev
	@$(BIN)/python benchmarks/link.py $(ARGS)

bench-relay: setup-dev
	@$(BIN)/python benchmarks/routing.py $(ARGS)
	@$(BIN)/python benchmarks/relay.py $(ARGS)
	@PYTHONPATH=. $(BIN)/python benchmarks/kme/relays.py $(ARGS)

# A year of passes and keys of a hundred satellites: make bench-space ARGS="--satellites 10"
bench-space: setup-dev
	@$(BIN)/python benchmarks/space.py $(ARGS)

# The software bill of materials of a release, CycloneDX 1.5.
sbom: setup-dev
	@mkdir -p dist
	$(BIN)/python tools/sbom.py > dist/openqci.cdx.json

docs: setup-dev
	$(UV) sync --frozen --inexact --extra plot --extra kernels --extra postgres --extra hsm --quiet --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean:
	rm -rf .venv .tool site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
