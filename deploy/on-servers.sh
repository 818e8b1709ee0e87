#!/usr/bin/env bash
# Runs a command of the tests on the servers of another Debian suite (deploy/install-servers.sh),
# or skips it where this machine cannot have them:
#   deploy/on-servers.sh trixie cargo test -p zentra-tests
# ZENTRA_STORE=valkey-server takes Valkey instead of Redis.
set -euo pipefail
suite=$1
shift
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/servers/$suite")
status=0
bash "$(dirname "$0")/install-servers.sh" "$suite" "$folder" || status=$?
[ "$status" -eq 3 ] && exit 0
[ "$status" -eq 0 ] || exit "$status"
echo "on-servers: $suite, ${ZENTRA_STORE:-redis-server}: $*"
ZENTRA_SERVERS=$folder exec "$@"
