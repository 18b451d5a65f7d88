# The commands of this project. `make` alone lists them.

CARGO_TEST ?= cargo test --locked
# Tests load the sandbox enough to pay for optimising it; one small run does not.
QUICKSTART_PROFILE := --config profile.dev.package.posthog-sandbox.opt-level=0
FUZZ_SECONDS ?= 10
SOAK_MINUTES ?= 60
FUZZ_TOOLS ?= $(HOME)/.cache/source-posthog/tools

.PHONY: help build quickstart test lint unit doc spec live bench bench-quick pictures image-test deny release fuzz soak try-posthog

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make build       release builds of both programs, in target/release
build:
	cargo build --release --locked --bins

## make quickstart  the main job against a sandbox: PostHog to Patterns, twice
quickstart:
	cargo build --locked --package source-posthog --package quickstart --bins $(QUICKSTART_PROFILE)
	$${CARGO_TARGET_DIR:-target}/debug/quickstart

## make test        everything that must pass
test: lint unit doc live bench-quick deny image-test fuzz

## make lint        format and clippy
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

## make unit        Rust tests
unit:
	$(CARGO_TEST) --workspace

## make doc         documentation without broken links
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

## make live        real PostHog SDKs through the whole chain, and Airbyte's own tools
live:
	cargo build --locked --workspace --bins
	integration_tests/python/run

## make try-posthog asks a real PostHog what is not known for sure; needs POSTHOG_API_KEY and PROJECT_ID
try-posthog:
	@cargo build --locked --package posthog-sandbox
	@python3 integration_tests/python/try_posthog

## make image-test  both images, built without a Docker daemon and run as Airbyte runs them
image-test:
	integration_tests/image/run

## make deny        licences, banned crates, sources and known vulnerabilities of all dependencies
deny:
	packaging/deny

## make release     archive, SBOM and checksums for this machine, in dist/
release:
	packaging/release

## make fuzz        the fuzz targets, FUZZ_SECONDS each
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_TOOLS=$(FUZZ_TOOLS) fuzz/run

## make soak        random lives of the built program for SOAK_MINUTES (60)
soak:
	SOAK_MINUTES=$(SOAK_MINUTES) $(CARGO_TEST) --test integration lives::soak -- --ignored --nocapture

## make spec        the specifications, docs/streams.md and the tables of settings, generated from the types
spec:
	UPDATE_SPECIFICATIONS=1 cargo test --locked --test integration -- specification streams_page settings_tables verify_page costs_page privacy_page

## make bench       everything in docs/PERFORMANCE.md, measured on this machine (ten minutes)
bench: build
	cargo build --release --locked --package posthog-benchmark
	$${CARGO_TARGET_DIR:-target}/release/posthog-benchmark run

## make bench-quick the same with few events and debug builds, to see that it works
bench-quick:
	cargo build --locked --workspace --bins
	$${CARGO_TARGET_DIR:-target}/debug/posthog-benchmark run --quick

## make pictures    the pictures of the documents; needs graphviz, util-linux and what make live installs
pictures:
	dot -Tsvg docs/pictures/architecture.dot -o docs/pictures/architecture.svg
	integration_tests/python/.venv/bin/python docs/pictures/quickstart.py
	cd integration_tests/python && FIGURES=$(CURDIR)/target/figures.json .venv/bin/python -m pytest migrating.py
	python3 docs/pictures/migrating.py target/figures.json
