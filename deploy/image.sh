#!/usr/bin/env bash
# Builds the image of deploy/Dockerfile without an engine, and runs its programs: with buildah, on a base image that
# debootstrap makes, from programs that are built already. Needs root.
#
#   bash deploy/image.sh [FOLDER_OF_THE_PROGRAMS]
set -euo pipefail
cd "$(dirname "$0")/.."
programs=${1:-${CARGO_TARGET_DIR:-target}/debug}
work=$(mktemp -d "${TMPDIR:-/tmp}/zentra-image-XXXXXX")
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
buildah=(buildah --root "$work/storage" --runroot "$work/run")
buildah() { command "${buildah[@]}" "$@"; }
finish() {
  [ -z "${server:-}" ] || kill -KILL -- "-$server" 2>/dev/null || true
  buildah rm --all >/dev/null 2>&1 || true
  rm -rf --one-file-system "$work"
}
trap finish EXIT

echo "image: a base of Debian's packages"
debootstrap --variant=minbase bookworm "$work/base" > "$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
# `from_folder NAME FOLDER`: an image of a folder.
from_folder() {
  local container
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$2" / >/dev/null
  buildah commit --quiet --rm "$container" "localhost/$1" >/dev/null
}
from_folder zentra-base "$work/base"
rm -rf "$work/base"
mkdir -p "$work/built/programs"
for program in zentra zentra-ingress zentra-worker; do
  strip -o "$work/built/programs/$program" "$programs/$program"
done
from_folder zentra-programs "$work/built"

echo "image: deploy/Dockerfile"
buildah bud --quiet --pull-never --build-arg BASE=localhost/zentra-base --build-arg PROGRAMS=localhost/zentra-programs \
  --file deploy/Dockerfile --tag localhost/zentra . > "$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }

echo "image: its programs"
container=$(buildah from --pull-never localhost/zentra)
run() { buildah run "$container" -- "$@"; }
for program in zentra zentra-ingress zentra-worker; do run "$program" --version; done
[ "$(run id -u)" = 10001 ]
[ "$(run stat -c %u /token)" = 10001 ]
# A standalone, its health as compose asks for it, and a signed test callback.
mkdir "$work/data" "$work/etc"
"$programs/zentra" init standard-webhooks --config "$work/etc/zentra.toml" >/dev/null
sed -i -e 's|^path *=.*|path = "/data/zentra.db"|' -e "s|$work/etc|/etc/zentra|" "$work/etc/zentra.toml"
chmod -R a+rX "$work/etc" && chmod 777 "$work/data"
with_files=("${buildah[@]}" run --volume "$work/etc:/etc/zentra:ro" --volume "$work/data:/data" "$container" --)
# In a process group of its own, which ends with this script.
setsid "${with_files[@]}" zentra standalone --listen 127.0.0.1:18073 --ingress-admin 127.0.0.1:18074 --worker-admin 127.0.0.1:18075 \
  > "$work/log" 2>&1 &
server=$!
for _ in $(seq 100); do
  if run zentra health http://127.0.0.1:18074/readyz > "$work/health" 2>&1; then ready=1; break; fi
  sleep 0.2
done
[ -n "${ready:-}" ] || { cat "$work/log" "$work/health"; exit 1; }
"${with_files[@]}" zentra send standard-webhooks invoice.paid --url http://127.0.0.1:18073
echo "image: built, and its programs run"
