#!/usr/bin/env bash
# Makes the secrets of docker-compose.yml and deploy/local in a folder, each in a file. What exists already stays.
#
#   bash deploy/compose/secrets.sh [FOLDER [RABBITMQ [REDIS]]]
#
# FOLDER is deploy/compose/secrets; RABBITMQ and REDIS are addresses (rabbitmq:5672, redis:6379).
set -euo pipefail
folder=${1:-$(dirname "$0")/secrets}
rabbitmq=${2:-rabbitmq:5672}
redis=${3:-redis:6379}

# Nobody else reaches the folder. The files in it are read by users of containers.
mkdir -p "$folder"
chmod 700 "$folder"
umask 022

random() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
# Standard Webhooks: the key in Base64.
whsec() { printf 'whsec_%s' "$(head -c 24 /dev/urandom | base64 -w0)"; }
secret() { [ -s "$folder/$1" ] || printf '%s\n' "$2" > "$folder/$1"; }

secret rabbitmq_password "$(random)"
secret redis_password "$(random)"
secret rabbitmq.conf "default_user = zentra
default_pass = $(cat "$folder/rabbitmq_password")"
secret redis.conf "requirepass $(cat "$folder/redis_password")"
secret rabbitmq_url "amqp://zentra:$(cat "$folder/rabbitmq_password")@$rabbitmq/%2f"
secret redis_url "redis://:$(cat "$folder/redis_password")@$redis/"
secret seal "$(random)"
secret acme "$(whsec)"
secret ledger_signing "$(whsec)"
secret grafana_password "$(random)"
