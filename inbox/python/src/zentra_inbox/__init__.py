"""Receives signed webhooks and writes each event once: the event's key is stored in the transaction of its effect."""

from .inbox import Answer, Event, Inbox, Permanent
from .stores import DjangoStore, PsycopgStore, SqlAlchemyStore, SqliteStore, Store
from .verify import Headers, Refused, Verifier

__all__ = [
    "Answer",
    "DjangoStore",
    "Event",
    "Headers",
    "Inbox",
    "Permanent",
    "PsycopgStore",
    "Refused",
    "SqlAlchemyStore",
    "SqliteStore",
    "Store",
    "Verifier",
]
