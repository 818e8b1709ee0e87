"""Flask and SQLite."""

import os

from flask import Flask, request
from zentra_inbox import Inbox, SqliteStore

inbox = Inbox([os.environ["LEDGER_SIGNING"]], SqliteStore(os.environ["DATABASE"]))
inbox.create()
app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1 << 20


def book(event, connection):
    connection.execute("INSERT INTO ledger (transfer) VALUES (?)", [event.json()["id"]])


@app.post("/webhooks")
def webhooks():
    answer = inbox.receive(request.headers, request.get_data(), book)
    return answer.text, answer.status, {"content-type": "text/plain"}
