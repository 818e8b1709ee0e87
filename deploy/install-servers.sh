#!/usr/bin/env bash
# Installs the servers of another Debian suite into a folder, for tests on newer versions:
#   deploy/install-servers.sh trixie FOLDER     RabbitMQ 4.0, Redis 8.0, Valkey 8.1
#   deploy/install-servers.sh forky FOLDER      RabbitMQ 4.3, Redis 8.0, Valkey 9.1
# ZENTRA_SERVERS=FOLDER then runs them: see operator/rehearse/src/sandbox/programs.rs.
# Exit status 3: this machine cannot have such a folder (no root, no debootstrap, no mounts).
set -euo pipefail
suite=$1
folder=$(realpath -m "$2")
mirror=${ZENTRA_MIRROR:-http://deb.debian.org/debian}
cannot() {
  echo "install-servers: $1: the servers of $suite are skipped" >&2
  exit 3
}

[ -e "$folder/.complete" ] && exit 0
[ "$(id -u)" -eq 0 ] || cannot "this needs root"
unshare --mount true 2>/dev/null || cannot "mounts are not allowed here"
if ! command -v debootstrap >/dev/null; then
  command -v apt-get >/dev/null || cannot "debootstrap is not installed"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap; } \
    >/dev/null 2>&1 || cannot "debootstrap cannot be installed"
fi
# An older debootstrap does not know a newer suite by name. All of them use the same script.
script=/usr/share/debootstrap/scripts/$suite
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
rm -rf "$folder"
mkdir -p "$folder"
echo "install-servers: installing $suite into $folder"
if ! debootstrap --variant=minbase --include=rabbitmq-server,redis-server,valkey-server \
  "$suite" "$folder" "$mirror" "$script" >"$folder.log" 2>&1; then
  tail -n 20 "$folder.log" >&2
  cannot "debootstrap failed (see $folder.log)"
fi
# Newer suites bring none, and Erlang looks up the host of a node.
[ -e "$folder/etc/hosts" ] || printf '127.0.0.1\tlocalhost\n' >"$folder/etc/hosts"
touch "$folder/.complete"
chroot "$folder" dpkg-query --show rabbitmq-server redis-server valkey-server
