.PHONY: demo test services

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

services:
	@bash deploy/install-services.sh
