#!/usr/bin/env bash
# Tries the Debian package as a new user does: in a bare Debian without Rust, from the installation to
# an event at a plain Python application, and back. Needs root, debootstrap, and dist/zentra_*.deb.
#
#   deploy/packages/try.sh bookworm
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=${1:?the Debian suite: bookworm or trixie}
package=$(ls dist/zentra_*.deb)
root=$(mktemp -d "${TMPDIR:-/tmp}/zentra-$suite-XXXXXX")
finish() {
  umount --recursive --lazy "$root/proc" "$root/dev" 2>/dev/null || true
  rm -rf --one-file-system "$root"
}
trap finish EXIT
# It is the root folder of all users there.
chmod 755 "$root"

echo "try: a bare $suite, with Python and systemd's checks"
debootstrap --variant=minbase --include=python3,systemd,procps,ca-certificates "$suite" "$root" >"$root.log" 2>&1 \
  || { tail -20 "$root.log"; exit 1; }
rm -f "$root.log"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev" && mount --make-rslave "$root/dev"
cp "$package" "$root/root/zentra.deb"
cp deploy/packages/journey.sh "$root/root/"
# Nothing of this machine's environment, and no network.
unshare --net chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
  bash /root/journey.sh
