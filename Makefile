# Everything a person types. `make` alone lists it.

# Arguments for `postrider serve`: make run ARGS="--listen 127.0.0.1:9000"
ARGS ?=

# Where cargo builds to: an absolute path, or relative to this folder.
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Into a file first: a failing build must not end up in the document.
PRINT_OPENAPI = mkdir -p $(TARGET) && cargo run --quiet --locked -- openapi > $(TARGET)/openapi.json

.DEFAULT_GOAL := help
.PHONY: help setup run test fuzz model bench bench-smoke soak deny openapi check check-fmt check-clippy check-doc check-openapi check-metrics

help: ## what there is to type
	@echo 'usage: make TARGET'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: a C compiler, Postgres' server programs
	@scripts/setup

# Whoever says where to listen says whom to let in, too: the gateway's own
# default asks for API keys.
AUTH := $(if $(findstring --auth,$(ARGS))$(findstring --listen,$(ARGS))$(POSTRIDER_AUTH)$(POSTRIDER_LISTEN),,--auth off)

# exec, so that no shell stands between the terminal and the gateway: Ctrl-C and
# SIGTERM reach it, and make waits until it has drained.
# Whoever types this watches: a line for each request, unless they said otherwise.
run: setup ## build it, and serve on 127.0.0.1:8080 with a Postgres of its own
	cargo build --release --locked
	@POSTRIDER_LOG_REQUESTS="$${POSTRIDER_LOG_REQUESTS:-all}" exec $(TARGET)/release/postrider serve $(AUTH) $(ARGS)

test: setup ## run every test; they start a Postgres of their own
	cargo test --locked

fuzz: setup ## fuzz the contract: schemathesis over the OpenAPI document, three minutes
	cargo build --locked
	scripts/fuzz-contract $(ARGS)

model: setup ## a queue's whole life against a model: a minute, or ARGS="--minutes 30 --seed 7"
	POSTRIDER_MODEL="$(ARGS)" cargo test --locked --test it model::the_whole -- --nocapture

bench: setup ## measure, beside what the machine allows; some nine minutes and a release build
	cargo bench --locked --profile dist --bench bench $(if $(findstring --peer-rabbitmq,$(ARGS)),--features peer-rabbitmq) -- $(ARGS)

bench-smoke: setup ## each line of the benchmark for an instant, to see that it works
	cargo bench --locked --profile dev --bench bench -- --smoke --out $(TARGET)/bench-smoke

soak: setup ## ten minutes at full speed: does the rate hold, do the tables stay small?
	cargo bench --locked --profile dist --bench bench -- --soak 10

deny: ## licences, sources and bans of the dependencies
	scripts/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

openapi: ## write openapi/openapi.json anew from the code
	$(PRINT_OPENAPI)
	cp $(TARGET)/openapi.json openapi/openapi.json

check: check-fmt check-clippy check-doc check-openapi ## format, lints, documentation, OpenAPI: all CI checks besides the tests

check-fmt:
	cargo fmt --check

check-clippy:
	cargo clippy --locked --all-targets -- -D warnings

check-doc:
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

check-openapi:
	$(PRINT_OPENAPI)
	@diff -u openapi/openapi.json $(TARGET)/openapi.json \
	  || { echo 'openapi/openapi.json is not what the code says: `make openapi` rewrites it' >&2; exit 1; }

check-metrics: setup ## have promtool check what /metrics answers after traffic of every kind
	PROMTOOL=$$(scripts/promtool) && export PROMTOOL && cargo test --locked --test it -- metrics::promtool
