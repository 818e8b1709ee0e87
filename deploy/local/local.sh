#!/usr/bin/env bash
# The set of docker-compose.yml without containers, from Debian's packages: RabbitMQ, Redis, two ingresses behind HAProxy,
# workers, console, demo application, Prometheus, Alertmanager. Grafana is left out: Debian has none.
#
#   bash deploy/local/local.sh up                  start everything, or what is not running
#   bash deploy/local/local.sh status              what runs, and where
#   bash deploy/local/local.sh zentra ARGUMENTS    run a command, such as: zentra send acme invoice.paid
#   bash deploy/local/local.sh console             a link that signs in to the console
#   bash deploy/local/local.sh scale worker=5      another number of workers
#   bash deploy/local/local.sh restart NAME        end one gently and start it again: ingress-1, worker-2, rabbitmq, …
#   bash deploy/local/local.sh down                end everything; the data stays
#
# ZENTRA_LOCAL_DIR is the folder for data, secrets and logs (.local in the current folder). ZENTRA_LOCAL_PORT is the first of
# 40 ports (18080: the load balancer). ZENTRA_BIN is the folder of Zentra's programs (a build in target/, or the PATH).
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
root=${ZENTRA_LOCAL_DIR:-$PWD/.local}
base=${ZENTRA_LOCAL_PORT:-18080}
workers=${ZENTRA_LOCAL_WORKERS:-2}
export PATH=$PATH:/usr/sbin

console=$((base + 1)) ledger=$((base + 2)) prometheus=$((base + 3)) alertmanager=$((base + 4))
rabbitmq=$((base + 5)) epmd=$((base + 6)) distribution=$((base + 7)) redis=$((base + 8)) balancer=$((base + 9))
ingress() { echo $((base + 8 + 2 * $1)); }          # its admin port is the next one
worker() { echo $((base + 20 + $1)); }
MOST_WORKERS=19

fail() { echo "local.sh: $*" >&2; exit 1; }

programs() {
  local folder
  for folder in "${ZENTRA_BIN:-}" "$here/../target/dist" "$here/../target/release" "$here/../target/debug"; do
    if [ -n "$folder" ] && [ -x "$folder/zentra-ingress" ]; then echo "$(cd "$folder" && pwd)/"; return; fi
  done
  command -v zentra-ingress >/dev/null || fail "zentra-ingress is not built: cargo build --workspace --bins, or set ZENTRA_BIN"
}

# Waits until a command succeeds, for a minute at most.
await() {
  local what=$1; shift
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  fail "$what is not ready after a minute: see $root/log"
}
answers() { curl --silent --fail --max-time 2 --output /dev/null "$1"; }

# When a process started, and nothing if it has ended (state Z waits for its parent only).
started() { sed -n 's/.*) \([^ZX]\) /\1 /p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
# Whether it runs. Another process can have its number after a restart of the machine: the time differs.
runs() {
  local pid time
  [ -s "$root/run/$1" ] && read -r pid time < "$root/run/$1" && [ -n "$time" ] && [ "$(started "$pid")" = "$time" ]
}

# Starts a program in a process group of its own, in the background.
start() {
  local name=$1; shift
  if runs "$name"; then return; fi
  setsid "$@" >> "$root/log/$name.log" 2>&1 < /dev/null &
  echo "$! $(started $!)" > "$root/run/$name"
}

# Ends a program gently, or after 45 seconds by force.
stop() {
  local name=$1 pid
  if ! runs "$name"; then rm -f "$root/run/$name"; return; fi
  read -r pid _ < "$root/run/$name"
  kill -TERM -- "-$pid"
  for _ in $(seq 225); do
    if ! runs "$name"; then rm -f "$root/run/$name"; return; fi
    sleep 0.2
  done
  kill -KILL -- "-$pid" || true
  rm -f "$root/run/$name"
}

# Configuration and secrets: those of compose, with addresses and paths of this machine.
prepare() {
  umask 077
  mkdir -p "$root"/{run,log,rabbitmq,redis,prometheus,alertmanager,targets}
  bash "$here/compose/secrets.sh" "$root/secrets" "127.0.0.1:$rabbitmq" "127.0.0.1:$redis"
  chmod 600 "$root"/secrets/*
  sed -e "s|/run/secrets/|$root/secrets/|" -e "s|ledger:8000|127.0.0.1:$ledger|" \
    -e 's|^trusted_proxies.*|trusted_proxies = ["127.0.0.1"]|' "$here/compose/zentra.toml" > "$root/zentra.toml"
  { sed '/^resolvers/,$d' "$here/compose/haproxy.cfg" | sed -e "s|bind :8080|bind 127.0.0.1:$base|" \
      -e "s|bind :8405|bind 127.0.0.1:$balancer|" -e 's| port 9080||; s| resolvers docker init-addr none||' -e '/server-template/d'
    for at in 1 2; do
      echo "    server ingress-$at 127.0.0.1:$(ingress $at) port $(($(ingress $at) + 1))"
    done; } > "$root/haproxy.cfg"
  cat > "$root/prometheus.yml" <<END
global: { scrape_interval: 2s, evaluation_interval: 2s }
rule_files: ["$here/prometheus/rules.yml"]
alerting:
  alertmanagers: [{ static_configs: [{ targets: ["127.0.0.1:$alertmanager"] }] }]
scrape_configs:
  - job_name: zentra-ingress
    static_configs: [{ targets: ["127.0.0.1:$(($(ingress 1) + 1))", "127.0.0.1:$(($(ingress 2) + 1))"] }]
  - job_name: zentra-worker
    file_sd_configs: [{ files: ["$root/targets/worker.json"], refresh_interval: 5s }]
  - job_name: zentra-serve
    metrics_path: /v1/metrics
    authorization: { credentials_file: "$root/secrets/prometheus" }
    static_configs: [{ targets: ["127.0.0.1:$console"] }]
  - job_name: load-balancer
    static_configs: [{ targets: ["127.0.0.1:$balancer"] }]
END
}

start_rabbitmq() {
  local server
  server=$(compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server' | sort -V | tail -1)
  [ -n "$server" ] || fail "RabbitMQ is not installed: bash deploy/install-services.sh"
  { echo "listeners.tcp.1 = 127.0.0.1:$rabbitmq"; echo "log.console = true"; cat "$root/secrets/rabbitmq.conf"; } > "$root/rabbitmq.conf"
  echo '[].' > "$root/enabled_plugins"
  start rabbitmq env HOME="$root/rabbitmq" RABBITMQ_NODENAME="zentra-$rabbitmq@localhost" ERL_EPMD_PORT="$epmd" \
    ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT="$distribution" RABBITMQ_CONFIG_FILE="$root/rabbitmq.conf" \
    RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_MNESIA_BASE="$root/rabbitmq" RABBITMQ_LOG_BASE="$root/log" RABBITMQ_LOGS=- \
    RABBITMQ_ENABLED_PLUGINS_FILE="$root/enabled_plugins" RABBITMQ_ALLOW_INPUT=1 ERL_CRASH_DUMP_SECONDS=0 \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} -rabbit dead_letter_worker_publisher_confirm_timeout 10000" \
    "$server" -noinput
}

start_redis() {
  start redis redis-server "$root/secrets/redis.conf" --bind 127.0.0.1 --port "$redis" --dir "$root/redis" \
    --appendonly yes --appendfsync always --maxmemory-policy noeviction
}

start_ingress() {
  local port
  port=$(ingress "$1")
  start "ingress-$1" "${bin}zentra-ingress" --config "$root/zentra.toml" --listen "127.0.0.1:$port" --admin "127.0.0.1:$((port + 1))"
}

start_worker() {
  start "worker-$1" "${bin}zentra-worker" --config "$root/zentra.toml" --admin "127.0.0.1:$(worker "$1")"
}

start_one() {
  case $1 in
    rabbitmq) start_rabbitmq; await RabbitMQ greets "$rabbitmq" ;;
    redis) start_redis; await Redis redis_answers ;;
    ingress-[12]) start_ingress "${1#*-}"; await "$1" answers "http://127.0.0.1:$(($(ingress "${1#*-}") + 1))/readyz" ;;
    worker-*) start_worker "${1#*-}"; await "$1" answers "http://127.0.0.1:$(worker "${1#*-}")/readyz" ;;
    load-balancer)
      start load-balancer haproxy -db -f "$root/haproxy.cfg"; await HAProxy answers "http://127.0.0.1:$balancer/metrics" ;;
    ledger)
      start ledger python3 "$here/compose/ledger.py" "127.0.0.1:$ledger" "$root/ledger.db" "$root/secrets/ledger_signing"
      await "the ledger" answers "http://127.0.0.1:$ledger/" ;;
    serve)
      start serve "${bin}zentra" serve --config "$root/zentra.toml" --listen "127.0.0.1:$console" --admit \
        --ingress "http://127.0.0.1:$base"
      await "zentra serve" answers "http://127.0.0.1:$console/healthz" ;;
    prometheus)
      start prometheus prometheus --config.file="$root/prometheus.yml" --storage.tsdb.path="$root/prometheus" \
        --web.listen-address="127.0.0.1:$prometheus"
      await Prometheus answers "http://127.0.0.1:$prometheus/-/ready" ;;
    alertmanager)
      start alertmanager prometheus-alertmanager --config.file="$here/compose/alertmanager.yml" \
        --storage.path="$root/alertmanager" --web.listen-address="127.0.0.1:$alertmanager" --cluster.listen-address=
      await Alertmanager answers "http://127.0.0.1:$alertmanager/-/ready" ;;
    *) fail "unknown: $1" ;;
  esac
}

# AMQP: RabbitMQ answers its protocol's greeting. It opens this port last.
greets() {
  exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'AMQP\0\0\x09\x01' >&3 && [ "$(head -c 1 <&3 | od -An -tx1)" = " 01" ]
}
redis_answers() { REDISCLI_AUTH=$(cat "$root/secrets/redis_password") redis-cli -p "$redis" ping | grep -q PONG; }

running_workers() { for at in $(seq "$MOST_WORKERS"); do if runs "worker-$at"; then echo "$at"; fi; done; }

write_targets() {
  local list=
  for at in $(running_workers); do list="$list${list:+, }\"127.0.0.1:$(worker "$at")\""; done
  printf '[{ "targets": [%s] }]\n' "$list" > "$root/targets/worker.json.new"
  mv "$root/targets/worker.json.new" "$root/targets/worker.json"
}

up() {
  prepare
  local name
  start_rabbitmq
  for name in redis rabbitmq ledger ingress-1 ingress-2 load-balancer; do start_one "$name"; done
  if [ ! -s "$root/secrets/prometheus" ]; then
    "${bin}zentra" --config "$root/zentra.toml" token create prometheus --expires-in 366days --because deploy/local \
      > "$root/secrets/prometheus"
  fi
  start_one serve
  scale "$workers"
  for name in alertmanager prometheus; do start_one "$name"; done
  status
}

scale() {
  [ "$1" -ge 1 ] && [ "$1" -le "$MOST_WORKERS" ] || fail "from 1 to $MOST_WORKERS workers"
  local at
  for at in $(seq "$1"); do start_one "worker-$at"; done
  for at in $(running_workers); do
    if [ "$at" -gt "$1" ]; then stop "worker-$at"; fi
  done
  write_targets
}

status() {
  local name
  for name in $(ls "$root/run" 2>/dev/null); do
    if runs "$name"; then echo "$name runs"; else echo "$name does not run: see $root/log/$name.log"; fi
  done
  cat <<END
callbacks      http://127.0.0.1:$base/in/acme
console        http://127.0.0.1:$console (a link that signs in: bash deploy/local/local.sh console)
ledger         http://127.0.0.1:$ledger
Prometheus     http://127.0.0.1:$prometheus
Alertmanager   http://127.0.0.1:$alertmanager
END
}

# What depends on another ends before it.
down() {
  local name at
  for name in prometheus alertmanager load-balancer ingress-1 ingress-2; do stop "$name"; done
  for at in $(running_workers); do stop "worker-$at"; done
  for name in serve ledger rabbitmq redis; do stop "$name"; done
}

bin=$(programs)
command=${1:-}
shift || true
case $command in
  up | down | status) "$command" ;;
  scale) case ${1:-} in worker=*) scale "${1#worker=}" ;; *) fail "scale worker=NUMBER" ;; esac ;;
  restart) stop "${1:?which one?}"; start_one "$1" ;;
  # Test callbacks go to the load balancer.
  zentra)
    export ZENTRA__INGRESS__LISTEN="127.0.0.1:$base" ZENTRA__WORKER__ADMIN="127.0.0.1:$(worker 1)"
    export ZENTRA__INGRESS__ADMIN="127.0.0.1:$(($(ingress 1) + 1))"
    exec "${bin}zentra" --config "$root/zentra.toml" "$@" ;;
  console) exec "${bin}zentra" --config "$root/zentra.toml" console open --at "http://127.0.0.1:$console" "$@" ;;
  *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64 ;;
esac
