.PHONY: test services

# What CI runs.
test: services
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo build --locked --workspace --bins
	cargo test --locked --workspace

services:
	@bash deploy/install-services.sh
