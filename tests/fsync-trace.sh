#!/usr/bin/env bash
# Shows that a 2xx is behind an fsync: what a standalone asks of the kernel while it takes one
# callback. Needs strace, curl, openssl, and the built binary. `make trace` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
zentra="$PWD/${CARGO_TARGET_DIR:-target}/debug/zentra"
folder=$(mktemp -d)
trap 'kill $pid 2>/dev/null || true; rm -rf "$folder"' EXIT
cat >"$folder/zentra.toml" <<CONFIG
ingress = { listen = "127.0.0.1:18080", admin = "127.0.0.1:18081" }
worker = { admin = "127.0.0.1:18082" }
seal.keys = [{ name = "k1", secret = "env:SEAL" }]
embedded.path = "$folder/zentra.db"
[source.stripe]
provider = "stripe"
secrets = [{ name = "k1", secret = "env:STRIPE" }]
[destination.none]
url = "http://127.0.0.1:9/"
subscribe = ["other.#"]
signing = [{ name = "k1", secret = "env:SIGNING" }]
CONFIG
export SEAL=0123456789abcdef STRIPE=whsec_trace SIGNING=whsec_bGVkZ2VyLXNpZ25pbmcta2V5
"$zentra" --config "$folder/zentra.toml" standalone 2>"$folder/log" &
pid=$!
for _ in $(seq 100); do curl -sf http://127.0.0.1:18081/readyz >/dev/null && break; sleep 0.1; done
strace -f -qq -yy -e trace=fsync,fdatasync,read,recvfrom,readv,write,writev,sendto -e signal=none \
  -o "$folder/trace" -p $pid 2>/dev/null &
strace=$!
sleep 1
body='{"id":"evt_1","type":"charge.succeeded"}'
time=$(date +%s)
v1=$(printf '%s.%s' "$time" "$body" | openssl dgst -sha256 -hmac "$STRIPE" | sed 's/.* //')
curl -s -o /dev/null -w 'answered %{http_code}\n' http://127.0.0.1:18080/in/stripe \
  -H "stripe-signature: t=$time,v1=$v1" --data-raw "$body"
kill $strace
wait $strace 2>/dev/null || true
grep -E 'POST /in|sync\(|HTTP/1.1 200' "$folder/trace" | cut -c1-160
awk '/POST \/in/ { synced = 0 }
     /sync\(.*zentra.db-wal/ { synced = 1 }
     /HTTP\/1.1 200/ { exit synced ? 0 : 1 }
     END { if (!synced) { print "no fsync before the 2xx"; exit 1 } }' "$folder/trace"
echo 'the file was synced before the 2xx'
