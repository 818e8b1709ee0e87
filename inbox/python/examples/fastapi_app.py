"""FastAPI and PostgreSQL."""

import os

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from psycopg_pool import ConnectionPool
from zentra_inbox import Inbox, PsycopgStore

pool = ConnectionPool(os.environ["DATABASE"], open=True)
inbox = Inbox([os.environ["LEDGER_SIGNING"]], PsycopgStore(pool.connection))
inbox.create()
app = FastAPI()


def book(event, connection):
    connection.execute("INSERT INTO ledger (transfer) VALUES (%s)", [event.json()["id"]])


@app.post("/webhooks")
async def webhooks(request: Request):
    answer = await run_in_threadpool(inbox.receive, request.headers, await request.body(), book)
    return PlainTextResponse(answer.text, answer.status)
