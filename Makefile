.PHONY: demo check test matrix chaos bench screenshots fixtures trace book dist dist-check compose-test publish-check services

# ZENTRA_SERVERS=trixie runs the tests on the servers of that Debian suite, and
# ZENTRA_STORE=valkey-server on Valkey instead of Redis (see deploy/install-servers.sh).
ON := $(if $(ZENTRA_SERVERS),bash deploy/on-servers.sh $(ZENTRA_SERVERS))
# What depends on the version of a server: the part of the tests that CI also runs on RabbitMQ 4.
ON_SERVERS := conformance:: broker:: faults:: queue:: journal:: alarm:: rehearse:: shards:: pull::

# Most tests wait for servers and for time, so more of them run at a time than there are cores.
export RUST_TEST_THREADS ?= $(shell echo $$(( $$(nproc) * 3 / 2 )))

# The picture: one transfer, three callbacks, a failed attempt, a killed worker, one result. On
# one file (`cargo run -- demo` is the same), and on RabbitMQ and Redis.
demo: services
	cargo build --locked
	cargo run --locked -- demo
	cargo run --locked -- demo --backend rabbitmq

# For daily work: format, lints, unit tests. No server is needed.
check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --workspace --exclude zentra-tests

# What CI runs.
test: services
	cargo fmt --all --check
	@# Before this version, whose programs have the same names.
	bash tests/previous.sh
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo build --locked --workspace --bins
	bash inbox/install.sh
	$(ON) cargo test --locked --workspace
ifndef ZENTRA_SERVERS
	@# With --workspace as above: nothing is built again.
	bash deploy/on-servers.sh trixie cargo test --locked --workspace --test all -- $(ON_SERVERS)
endif
ifndef ZENTRA_SERVERS
	@# The image, without an engine. It needs root.
	if [ "$$(id -u)" -eq 0 ]; then bash deploy/image.sh; fi
	bash deploy/helm/check.sh
endif
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; fi

# All tests on each version of the servers: this system's, Debian 13's and the next Debian's, with
# Redis and with Valkey. What fails on one is named at the end. Two hours on two cores.
matrix: test
	@failed=; for suite in trixie forky; do for store in redis-server valkey-server; do \
		ZENTRA_STORE=$$store bash deploy/on-servers.sh $$suite \
			cargo test --locked --no-fail-fast -p zentra-tests || failed="$$failed $$suite/$$store"; \
	done; done; [ -z "$$failed" ] || { echo "failed on:$$failed" >&2; exit 1; }

# Everything dies while a thousand events flow, in an order that a seed decides: a new one each
# time, or ZENTRA_SEED's. `make test` has the same run with one seed.
chaos: services
	cargo build --locked --workspace --bins
	ZENTRA_SEED=$${ZENTRA_SEED:-$$(od -An -N4 -tu4 /dev/urandom)} \
		cargo test --locked -p zentra-tests --test all -- chaos:: --nocapture

# The entrance beside the bare client library, on a private RabbitMQ: a few minutes.
bench:
	@bash deploy/install-services.sh bench
	cargo build --locked --profile dist --workspace --bins
	$${CARGO_TARGET_DIR:-target}/dist/zentra-bench

# What this version stores, for the tests of later versions. Run it before a release: from then on the form of
# what is stored changes only with a new version of the form (docs/how-to/upgrade.md).
fixtures: services
	cargo build --locked --workspace --bins
	version=$$("$${CARGO_TARGET_DIR:-target}/debug/zentra" --version | cut -d' ' -f2) && test -n "$$version" && \
		ZENTRA_RECORD="$(CURDIR)/tests/fixtures/stored/$$version" \
		cargo test --locked -p zentra-tests --test all -- upgrade::what_is_stored

# The console's pictures in docs/console. All of them are in target/screenshots: each page, light and
# dark, on a desk and on a phone.
PICTURES := $(foreach page,overview events event dead-letters jobs job sources destinations refused archive \
	reconcile system,$(page)-light-1280) $(foreach page,overview event,$(page)-dark-1280) \
	$(foreach page,overview event dead-letters,$(page)-dark-390)
screenshots: services
	cargo build --locked --workspace --bins
	ZENTRA_SCREENSHOTS=$(CURDIR)/target/screenshots \
		cargo test --locked -p zentra-tests --test all -- browser_pages::
	mkdir -p docs/console
	cp $(foreach name,$(PICTURES),target/screenshots/$(name).png) docs/console/

# The documentation as a website in target/book. Installs mdBook into target/tools.
book:
	cargo install --quiet --locked --root target/tools mdbook
	rm -rf target/book-pages && cp -R docs target/book-pages
	@# A link to a file outside of docs/ leads nowhere in the book: its text stays.
	sed -Ei 's|\[([^]]*)\]\(\.\./[^)]*\)|\1|g' target/book-pages/*.md
	sed -Ei 's|\[([^]]*)\]\(\.\./\.\./[^)]*\)|\1|g' target/book-pages/how-to/*.md
	target/tools/bin/mdbook build --dest-dir $(CURDIR)/target/book target/book-pages

# What a standalone asks of the kernel before it answers 2xx (needs strace).
trace:
	cargo build --locked
	bash tests/fsync-trace.sh

# What is released: a Debian package, an archive, an SBOM and SHA256SUMS, in dist/.
dist:
	bash deploy/packages/build.sh

# The package in bare Debians without Rust (needs root and debootstrap).
dist-check:
	bash deploy/packages/try.sh bookworm
	bash deploy/packages/try.sh trixie

# docker-compose.yml, brought up and tried (needs a Docker engine).
compose-test:
	bash deploy/compose/test.sh

# Packages the crates that are for other programs, and builds each package by itself.
publish-check:
	cargo publish --dry-run --locked -p webhook-verify -p zentra-core -p zentra-store \
		-p zentra-telemetry -p zentra-config -p zentra-rabbitmq -p zentra-redis -p zentra-worker

services:
	@bash deploy/install-services.sh
