# Runs inside the bare Debian of try.sh.
set -euo pipefail
ip link set lo up 2>/dev/null || python3 - <<'PYTHON'
# The loopback of a new network is down, and minbase has no `ip`.
import fcntl, socket, struct
sock = socket.socket()
fcntl.ioctl(sock, 0x8914, struct.pack("16sH14s", b"lo", 0x49, b""))
PYTHON

# What runs in the background ends too.
fail() {
  echo "try: FAILED: $*" >&2
  [ ! -e /root/standalone.txt ] || cat /root/standalone.txt >&2
  jobs -p | xargs -r kill 2>/dev/null || true
  exit 1
}
# Repeats a command until it succeeds, for 30 s at most.
until_ok() {
  local end=$((SECONDS + 30))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "$*"
    sleep 0.2
  done
}

! command -v cargo >/dev/null || fail "this system has Rust"
began=$SECONDS
dpkg --install /root/zentra.deb >/dev/null
zentra --version
zentra demo > /root/demo.txt || { cat /root/demo.txt; fail "zentra demo"; }
grep -q '1 result' /root/demo.txt || fail "the demo has no result"
took=$((SECONDS - began))
echo "try: from the package to the demo's result: $took s"
[ $took -lt 60 ] || fail "it took longer than a minute"

echo "try: five commands, to a plain Python application"
began=$SECONDS
cat > /root/application.py <<'PYTHON'
from http.server import BaseHTTPRequestHandler, HTTPServer

class Application(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with open("/root/received.txt", "a") as received:
            received.write(self.headers["idempotency-key"] + " " + body.decode() + "\n")
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", 3000), Application).serve_forever()
PYTHON
python3 /root/application.py 2>/dev/null &
application=$!
mkdir /root/shop && cd /root/shop
zentra init stripe > init.txt
zentra dev --forward http://127.0.0.1:3000/webhooks > dev.txt 2>&1 &
dev=$!
until_ok grep -q 'send one' dev.txt
zentra send stripe charge.succeeded --id evt_first
shown() { zentra event show evt_first | grep -q 'status     delivered'; }
until_ok shown
grep -q '^app/stripe/evt_first ' /root/received.txt || fail "the application has no event"
zentra doctor || fail "zentra doctor"
kill $dev && wait $dev || fail "zentra dev did not end well"
echo "try: five commands took $((SECONDS - began)) s"

echo "try: as a service"
systemd-analyze verify --man=no /usr/lib/systemd/system/zentra-*.service
for unit in zentra-standalone zentra-ingress zentra-worker zentra-serve; do
  systemd-analyze security --offline=true --threshold=30 "$unit.service" >/root/security.txt \
    || { tail -3 /root/security.txt; fail "$unit is exposed"; }
done
cd /
zentra init stripe --system --forward http://127.0.0.1:3000/webhooks > /root/init.txt
# As the unit does. It replaces the shell: call it in one of its own.
as_service() {
  cd /var/lib/zentra
  exec env ZENTRA_CONFIG=/etc/zentra/zentra.toml \
    setpriv --reuid zentra --regid zentra --clear-groups --no-new-privs "$@"
}
( as_service zentra standalone ) 2>/root/standalone.txt &
standalone=$!
until_ok zentra health http://127.0.0.1:9080/readyz
zentra send stripe charge.refunded --id evt_service --config /etc/zentra/zentra.toml
served() { ( as_service zentra event show evt_service ) | grep -q 'status     delivered'; }
until_ok served
( as_service zentra doctor ) || fail "zentra doctor as the service"
kill $standalone && wait $standalone || fail "zentra standalone did not end well"
kill $application

echo "try: upgrade, remove and purge"
dpkg-deb --extract /root/zentra.deb /tmp/new
/tmp/new/usr/bin/zentra check --config /etc/zentra/zentra.toml >/dev/null || fail "zentra check of a new version"
/tmp/new/usr/bin/zentra plan --config /etc/zentra/zentra.toml | grep -q 'a start changes nothing' ||
  fail "zentra plan of a new version"
rm -r /tmp/new
dpkg --install /root/zentra.deb >/dev/null
( as_service zentra event show evt_service ) >/dev/null || fail "an upgrade lost an event"
[ -s /usr/share/man/man1/zentra-dev.1.gz ] || fail "no manual page"
[ -s /usr/share/bash-completion/completions/zentra ] || fail "no completions"
dpkg --remove zentra >/dev/null
[ -e /etc/zentra/seal.key ] && [ -e /var/lib/zentra/zentra.db ] || fail "remove took data"
dpkg --purge zentra >/dev/null
# All that is left are the files that people, or the service, have written.
left=$(find / -xdev \( -path /proc -o -path /dev -o -path /root -o -path /tmp -o -path /sys -o -path /var/log \
  -o -path /var/lib/dpkg -o -path '/etc/zentra/*' -o -path '/var/lib/zentra/*' \) -prune -o -name '*zentra*' \
  -print | sort | tr '\n' ' ')
[ "$left" = "/etc/zentra /var/lib/zentra " ] || fail "purge left $left"
rm -rf /etc/zentra /var/lib/zentra
dpkg --install /root/zentra.deb >/dev/null && dpkg --purge zentra >/dev/null
! getent passwd zentra >/dev/null || fail "the user is left"
echo "try: passed"
