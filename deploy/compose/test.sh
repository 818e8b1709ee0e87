#!/usr/bin/env bash
# Brings up docker-compose.yml in a project of its own, and tries it: three callbacks and a failed attempt are one result, five
# workers are scraped, an ingress may end. Needs a Docker engine. `make compose-test` runs it.
set -euo pipefail
cd "$(dirname "$0")/../.."
compose() { docker compose --project-name zentra-test "$@"; }
docker info >/dev/null 2>&1 || { echo "compose-test: no Docker engine answers" >&2; exit 1; }
finish() { compose down --volumes --timeout 5 >/dev/null 2>&1 || true; }
trap finish EXIT

bash deploy/compose/secrets.sh
export LEDGER_FAILS=1
compose up --build --detach
await() {
  local what=$1; shift
  for _ in $(seq 90); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 2
  done
  compose logs --tail 20
  echo "compose-test: not within three minutes: $what" >&2
  exit 1
}
send() { compose exec -T serve zentra send acme invoice.paid --url http://load-balancer:8080 "$@"; }
transfers() { [ "$(curl --silent --fail http://127.0.0.1:8000/ | grep -o idempotency_key | wc -l)" = "$1" ]; }
up_targets() {
  local query='http://127.0.0.1:9090/api/v1/query?query=count(up%7Bjob%3D%22zentra-worker%22%7D%3D%3D1)'
  curl --silent --fail "$query" | grep -q "\"$1\""
}

await "a callback is accepted" send --times 3
await "the transfer is written once" transfers 1
compose up --detach --scale worker=5
await "five workers are scraped" up_targets 5
compose exec -T --index 1 ingress sh -c 'kill -TERM 1'
await "the other ingress accepts" send
await "it is written" transfers 2
curl --silent --fail --output /dev/null http://127.0.0.1:9470/healthz
curl --silent --fail --output /dev/null http://127.0.0.1:9093/-/ready
await "Grafana" curl --silent --fail http://127.0.0.1:3001/api/health
echo "compose-test: ok"
