#!/usr/bin/env python3
"""The demo application: a ledger of transfers. It verifies the signature (Standard Webhooks), and writes each transfer under
the idempotency key, in one transaction with its effect. Only Python's standard library is needed.

    ledger.py ADDRESS:PORT DATABASE FILE_OF_THE_SIGNING_SECRET

POST /webhooks takes an event, GET / lists the transfers. With LEDGER_FAILS=N, the first N requests are answered with 503.
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE = 300
MOST = 1 << 20
SCHEMA = """
CREATE TABLE IF NOT EXISTS transfer (
    idempotency_key TEXT PRIMARY KEY, id TEXT, body TEXT NOT NULL, at REAL NOT NULL
)
"""


def fits(key, headers, body):
    """Whether one of the signatures fits: https://www.standardwebhooks.com"""
    event, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent.isdecimal() or abs(time.time() - int(sent)) > TOLERANCE:
        return False
    signed = f"{event}.{sent}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    all_signatures = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(f"v1,{expected}", one) for one in all_signatures)


class Ledger:
    """The transfers, and how many requests still fail."""

    def __init__(self, path, fails):
        self.path, self.fails, self.lock = path, fails, threading.Lock()
        with self.open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(SCHEMA)

    def open(self):
        return sqlite3.connect(self.path, timeout=10)

    def fails_now(self):
        with self.lock:
            self.fails -= 1
            return self.fails >= 0

    def write(self, key, body):
        """Whether it is new. The key is written with the effect, or neither is."""
        event = json.loads(body)
        transfer = (event.get("transfer") or event.get("data") or {}).get("id")
        with self.open() as database:
            row = (key, transfer, body.decode(), time.time())
            statement = "INSERT INTO transfer VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            return database.execute(statement, row).rowcount == 1

    def rows(self):
        with self.open() as database:
            rows = database.execute("SELECT idempotency_key, id FROM transfer ORDER BY at")
            return [{"idempotency_key": key, "id": transfer} for key, transfer in rows]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    ledger, key = None, b""

    def do_GET(self):
        self.answer(200, self.ledger.rows())

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if self.path != "/webhooks" or not length.isdecimal() or int(length) > MOST:
            self.close_connection = True
            return self.answer(404, {"error": f"POST /webhooks with up to {MOST} bytes"})
        body = self.rfile.read(int(length))
        if not fits(self.key, self.headers, body):
            return self.answer(401, {"error": "the signature does not fit"})
        if self.ledger.fails_now():
            return self.answer(503, {"error": "this attempt was to fail"})
        try:
            # The idempotency key, as it is signed.
            is_new = self.ledger.write(self.headers["webhook-id"], body)
        except (AttributeError, ValueError):
            return self.answer(422, {"error": "not an event"})
        return self.answer(200, {"new": is_new})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    address, database, secret = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    with open(secret, encoding="utf-8") as file:
        Handler.key = base64.b64decode(file.read().strip().removeprefix("whsec_"))
    Handler.ledger = Ledger(database, int(os.environ.get("LEDGER_FAILS", "0")))
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
