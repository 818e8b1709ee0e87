"""Stores of keys.

`once(key, work)` begins a transaction, stores the key and, if it is new, runs `work` with the transaction. Before the
commit it looks whether the key is still there: a database that has rolled back on its own (an error that the handler
caught, a deadlock) must not be taken for a commit.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Engine

T_co = TypeVar("T_co", covariant=True)

INDEX = "CREATE INDEX IF NOT EXISTS zentra_inbox_at ON zentra_inbox (at)"
CREATE = {
    "sqlite": [
        "CREATE TABLE IF NOT EXISTS zentra_inbox (key TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        INDEX,
    ],
    "postgresql": [
        # One process at a time: IF NOT EXISTS fails if two create it at once.
        "SELECT pg_advisory_xact_lock(8172)",
        "CREATE TABLE IF NOT EXISTS zentra_inbox (key text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
        INDEX,
    ],
    "mysql": [
        # Bytes: the collations of text would take two keys for one.
        "CREATE TABLE IF NOT EXISTS zentra_inbox (`key` VARBINARY(512) PRIMARY KEY, "
        "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, INDEX (at)) ENGINE = InnoDB",
    ],
}
# With the placeholder of each library in the place of ?.
INSERT = {
    "sqlite": "INSERT INTO zentra_inbox (key, at) VALUES (?, unixepoch()) ON CONFLICT DO NOTHING",
    "postgresql": "INSERT INTO zentra_inbox (key) VALUES (?) ON CONFLICT DO NOTHING",
    # Not IGNORE: that would ignore other errors too.
    "mysql": "INSERT INTO zentra_inbox (`key`) VALUES (?)",
}
SELECT = {
    "sqlite": "SELECT 1 FROM zentra_inbox WHERE key = ?",
    "postgresql": "SELECT 1 FROM zentra_inbox WHERE key = ?",
    "mysql": "SELECT 1 FROM zentra_inbox WHERE `key` = ?",
}
# Old keys are removed by this many at a time, so that nothing waits long for a lock.
PORTION = 10_000
FORGET = {
    "sqlite": "DELETE FROM zentra_inbox WHERE key IN (SELECT key FROM zentra_inbox "
    f"WHERE at < unixepoch() - ? ORDER BY at LIMIT {PORTION})",
    "postgresql": "DELETE FROM zentra_inbox WHERE key IN (SELECT key FROM zentra_inbox "
    f"WHERE at < now() - make_interval(secs => ?) ORDER BY at LIMIT {PORTION})",
    "mysql": "DELETE FROM zentra_inbox "
    f"WHERE at < CURRENT_TIMESTAMP - INTERVAL ? SECOND ORDER BY at LIMIT {PORTION}",
}


class Store(Protocol[T_co]):
    """Where keys are stored. `T` is what a handler writes by."""

    def create(self) -> None:
        """Creates the table, if it does not exist."""

    def once(self, key: str, work: Callable[[T_co], object]) -> bool:
        """Runs `work` in a transaction that stores the key. `False` if the key was stored before."""

    def forget(self, seconds: float) -> None:
        """Removes keys that are older."""


class SqliteStore:
    """SQLite, by `sqlite3`. A handler receives a `Connection` of its own."""

    def __init__(self, path: str, timeout: float = 10) -> None:
        """`timeout`: how long to wait for another writer, in seconds."""
        self._path, self._timeout = path, timeout

    def _connect(self) -> closing[sqlite3.Connection]:
        # Without transactions of the module's own.
        return closing(sqlite3.connect(self._path, self._timeout, isolation_level=None))

    def create(self) -> None:
        with self._connect() as connection:
            for statement in CREATE["sqlite"]:
                connection.execute(statement)

    def once(self, key: str, work: Callable[[sqlite3.Connection], object]) -> bool:
        # A connection that is closed without a commit rolls back.
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            is_new = connection.execute(INSERT["sqlite"], [key]).rowcount == 1
            if is_new:
                work(connection)
                _is_stored(connection.execute(SELECT["sqlite"], [key]).fetchone())
            connection.execute("COMMIT")
            return is_new

    def forget(self, seconds: float) -> None:
        with self._connect() as connection:
            while connection.execute(FORGET["sqlite"], [int(seconds)]).rowcount == PORTION:
                pass


class PsycopgStore:
    """PostgreSQL, by psycopg 3. A handler receives a `Connection`."""

    def __init__(self, connect: Callable[[], AbstractContextManager["psycopg.Connection[Any]"]]) -> None:
        """`connect`: `ConnectionPool.connection`, or `lambda: psycopg.connect(…)`."""
        self._connect = connect

    def create(self) -> None:
        with self._connect() as connection:
            for statement in CREATE["postgresql"]:
                connection.execute(statement)

    def once(self, key: str, work: "Callable[[psycopg.Connection[Any]], object]") -> bool:
        with self._connect() as connection, connection.transaction():
            insert, select = (_formatted(sql["postgresql"]) for sql in (INSERT, SELECT))
            is_new = connection.execute(insert, [key]).rowcount == 1
            if is_new:
                work(connection)
                _is_stored(connection.execute(select, [key]).fetchone())
            return is_new

    def forget(self, seconds: float) -> None:
        removed = PORTION
        while removed == PORTION:
            with self._connect() as connection:
                removed = connection.execute(_formatted(FORGET["postgresql"]), [seconds]).rowcount


class SqlAlchemyStore:
    """PostgreSQL, MySQL, MariaDB and SQLite, by SQLAlchemy 2. A handler receives a `Connection`. With the ORM it writes
    by `Session(connection)`, and calls `flush`, not `commit`."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._dialect = _dialect(engine.dialect.name)

    def create(self) -> None:
        with self._engine.begin() as connection:
            for statement in CREATE[self._dialect]:
                connection.exec_driver_sql(statement)

    def once(self, key: str, work: "Callable[[Connection], object]") -> bool:
        from sqlalchemy import text
        from sqlalchemy.exc import IntegrityError

        insert, select = (text(_named(sql[self._dialect])) for sql in (INSERT, SELECT))
        with self._engine.begin() as connection:
            try:
                is_new = connection.execute(insert, {"value": key}).rowcount == 1
            except IntegrityError:
                if self._dialect != "mysql":
                    raise
                # The transaction goes on.
                return False
            if is_new:
                work(connection)
                _is_stored(connection.execute(select, {"value": key}).fetchone())
            return is_new

    def forget(self, seconds: float) -> None:
        from sqlalchemy import text

        forget, removed = text(_named(FORGET[self._dialect])), PORTION
        while removed == PORTION:
            with self._engine.begin() as connection:
                removed = connection.execute(forget, {"value": int(seconds)}).rowcount


class DjangoStore:
    """A database of Django's settings. A handler writes by models; it receives the connection."""

    def __init__(self, using: str = "default") -> None:
        self._using = using

    def _connection(self) -> Any:
        from django.db import connections

        return connections[self._using]

    def create(self) -> None:
        from django.db import transaction

        connection = self._connection()
        with transaction.atomic(using=self._using), connection.cursor() as cursor:
            for statement in CREATE[_dialect(connection.vendor)]:
                cursor.execute(statement)

    def once(self, key: str, work: Callable[[Any], object]) -> bool:
        from django.db import IntegrityError, transaction

        connection = self._connection()
        dialect = _dialect(connection.vendor)
        insert, select = (_formatted(sql[dialect]) for sql in (INSERT, SELECT))
        # Durable: within another transaction an effect could be undone after the answer.
        with transaction.atomic(using=self._using, durable=True), connection.cursor() as cursor:
            try:
                cursor.execute(insert, [key])
            except IntegrityError:
                if dialect != "mysql":
                    raise
                # The transaction goes on.
                return False
            is_new: bool = cursor.rowcount == 1
            if is_new:
                work(connection)
                cursor.execute(select, [key])
                _is_stored(cursor.fetchone())
            return is_new

    def forget(self, seconds: float) -> None:
        connection = self._connection()
        forget, removed = _formatted(FORGET[_dialect(connection.vendor)]), PORTION
        while removed == PORTION:
            with connection.cursor() as cursor:
                cursor.execute(forget, [int(seconds)])
                removed = cursor.rowcount


def _dialect(name: str) -> str:
    dialect = "mysql" if name == "mariadb" else name
    if dialect not in CREATE:
        raise ValueError(f"{name}: no such database here; there are {', '.join(CREATE)}")
    return dialect


def _formatted(sql: str) -> str:
    return sql.replace("?", "%s")


def _named(sql: str) -> str:
    return sql.replace("?", ":value")


def _is_stored(row: object) -> None:
    if row is None:
        raise RuntimeError("the database has rolled the transaction back: nothing was written")
