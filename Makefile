.PHONY: demo test bench services

# The picture: one transfer, three callbacks, a failed attempt, a killed worker, one result.
demo: services
	cargo build --locked --workspace --bins
	$${CARGO_TARGET_DIR:-target}/debug/zentra-demo

# What CI runs.
test: services
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo build --locked --workspace --bins
	cargo test --locked --workspace

# The entrance beside the bare client library, on a private RabbitMQ: a few minutes.
bench:
	@bash deploy/install-services.sh bench
	cargo build --locked --release --workspace --bins
	$${CARGO_TARGET_DIR:-target}/release/zentra-bench

services:
	@bash deploy/install-services.sh
