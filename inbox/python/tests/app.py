"""The application of the shared suite (tests/tests/all/inbox.rs)."""

import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from zentra_inbox import DjangoStore, Event, Inbox, Permanent, PsycopgStore, SqlAlchemyStore, SqliteStore

DATABASE = os.environ["DATABASE"]


def sqlite() -> Any:
    return SqliteStore(DATABASE), lambda connection, sql, values: connection.execute(sql, values)


def psycopg() -> Any:
    from psycopg_pool import ConnectionPool

    store = PsycopgStore(ConnectionPool(DATABASE, open=True).connection)
    return store, lambda connection, sql, values: connection.execute(sql.replace("?", "%s"), values)


def sqlalchemy() -> Any:
    from sqlalchemy import create_engine

    def run(connection: Any, sql: str, values: list[Any]) -> None:
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        connection.exec_driver_sql(sql.replace("?", mark), tuple(values))

    return SqlAlchemyStore(create_engine(DATABASE)), run


def django() -> Any:
    from django.conf import settings
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(DATABASE)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": given["host"],
                "PORT": given["port"],
                "USER": given["user"],
                "NAME": given["dbname"],
            }
        }
    )

    def run(connection: Any, sql: str, values: list[Any]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), values)

    return DjangoStore(), run


store, run = {"sqlite": sqlite, "psycopg": psycopg, "sqlalchemy": sqlalchemy, "django": django}[os.environ["STORE"]]()
inbox: Inbox[Any] = Inbox(os.environ["SECRETS"].split(" "), store)
inbox.create()


def handle(event: Event, transaction: Any) -> None:
    run(transaction, "INSERT INTO effect (event_key) VALUES (?)", [event.key])
    die_if(event.headers, "before the commit")
    match event.json().get("then"):
        case "is permanent":
            raise Permanent("no such account")
        case "fails":
            raise RuntimeError("the ledger is closed")
        case "rolls back":
            run(transaction, "ROLLBACK", [])
        case "goes on after an error":
            try:
                run(transaction, "INSERT INTO no_such_table (a) VALUES (1)", [])
            except Exception:
                pass  # PostgreSQL has given the transaction up.


def die_if(headers: Any, moment: str) -> None:
    if headers.get("x-test-die") == moment:
        os.kill(os.getpid(), signal.SIGKILL)


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            answer = inbox.receive(self.headers, body, handle)
        finally:
            if os.environ["STORE"] == "django":
                # As Django itself does at the end of a request.
                from django.db import connections

                connections.close_all()
        die_if(self.headers, "after the commit")
        text = answer.text.encode()
        self.send_response(answer.status)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Server).serve_forever()
