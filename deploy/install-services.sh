#!/usr/bin/env bash
# Gets from Debian what the tests and the demo need and this machine lacks:
# RabbitMQ, Redis, PostgreSQL, MariaDB, Node, Prometheus, Alertmanager, HAProxy, docker-compose, buildah, debootstrap, Chromium,
# TypeScript, iptables, Python, curl, CA certificates, a C compiler and make; with `bench`, wrk too. It starts none of the packages' own services: the tests and the demo run private servers.
set -euo pipefail

missing=()
[ -x /usr/sbin/rabbitmq-server ] || missing+=(rabbitmq-server)
command -v redis-server >/dev/null || missing+=(redis-server)
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
# To cut a node off its cluster. Without it that fault is left out.
command -v iptables >/dev/null || missing+=(iptables)
# For the commands of the documentation, and a terminal for the live view.
command -v python3 >/dev/null || missing+=(python3)
command -v curl >/dev/null || missing+=(curl)
command -v script >/dev/null || missing+=(bsdutils)
# For the alerts, and for deploy/local.
command -v promtool >/dev/null || missing+=(prometheus)
command -v prometheus-alertmanager >/dev/null || missing+=(prometheus-alertmanager)
command -v haproxy >/dev/null || missing+=(haproxy)
# For the chart's tools, which come from PyPI.
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
# To check docker-compose.yml, and to build and run the image without an engine.
command -v docker-compose >/dev/null || missing+=(docker-compose)
command -v buildah >/dev/null || missing+=(buildah)
command -v debootstrap >/dev/null || missing+=(debootstrap)
# For the console.
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
command -v tsc >/dev/null || missing+=(node-typescript)
# For the receiving libraries (inbox/).
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
[ -d /usr/include/node ] || missing+=(libnode-dev)
command -v c++ >/dev/null || missing+=(g++)
[ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
command -v git >/dev/null || missing+=(git)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if [ "${1:-}" = bench ]; then
  command -v wrk >/dev/null || missing+=(wrk)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "install-services: missing ${missing[*]}, and there is no apt-get here." >&2
  echo "Install RabbitMQ (3.10 or newer), Redis (7 or newer), PostgreSQL, MariaDB and Node by this system's own means." >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install-services: run as root to install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi

# Debian starts a service as it installs it, unless policy-rc.d says 101.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi

echo "install-services: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
