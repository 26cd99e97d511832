# Thin: each target is one or two commands that also work by hand.
# `make demo` and `make test` set everything up first; see scripts/setup.

SHELL := bash
CARGO ?= cargo
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint fuzz chaos setup ci

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Everything on loopback in a temporary directory (ARGS=--auto plays both sides)
	@scripts/setup $(if $(findstring --nodes,$(ARGS)),nodes,demo)
	@$(CARGO) run --quiet --bin holdpoint -- demo $(ARGS)

test: ## All tests, end to end ones included (ARGS is passed to `cargo test`)
	@scripts/setup test
	@$(CARGO) build --bin holdpoint
	@$(CARGO) test --workspace $(ARGS)

bench: ## Micro and load benchmarks, side by side with direct and PgBouncer
	@scripts/setup bench
	@$(CARGO) build --release --workspace --bin holdpoint
	@$(CARGO) bench --workspace --bench micro --bench load --bench crowd $(ARGS)

lint: ## Formatting, clippy, and cargo-deny where it is installed
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	 else echo "skipped: cargo-deny is not installed (cargo install cargo-deny)"; fi

fuzz: ## Run each parser's property tests far longer than `make test` does
	@PROPTEST_CASES=$${PROPTEST_CASES:-200000} $(CARGO) test \
	  -p holdpoint-core -p holdpoint-plugin-postgres --lib $(ARGS)
	@HOLDPOINT_MUTATIONS=$${HOLDPOINT_MUTATIONS:-2000000} HOLDPOINT_FUZZ_SECONDS=$${HOLDPOINT_FUZZ_SECONDS:-120} \
	  $(CARGO) test -p holdpoint-plugin-postgres --test differential --test fuzzing $(ARGS)

chaos: ## Break the store under nodes for minutes, and print figures (CHAOS_RACES, CHAOS_SEED)
	@scripts/setup nodes
	@HOLDPOINT_CHAOS_RACES=$${CHAOS_RACES:-10000} HOLDPOINT_CHAOS_CALM=$${CHAOS_CALM:-20} \
	  HOLDPOINT_CHAOS_WORLDS=$${CHAOS_WORLDS:-4} \
	  HOLDPOINT_CHAOS_SEED=$${CHAOS_SEED:-$$RANDOM} CI=true \
	  $(CARGO) test --workspace --lib -- cluster::tests::chaos --nocapture $(ARGS)

setup: ## Install what `make test` needs (Debian and Ubuntu); elsewhere say what is missing
	@scripts/setup test

ci: ## What CI runs
	@.ci/run
