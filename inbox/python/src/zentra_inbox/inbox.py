"""The inbox: one handler call for each event."""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .stores import Store
from .verify import TOLERANCE, Headers, Refused, Verifier

HOUR = 3600.0
DAY = 24 * HOUR

T = TypeVar("T")
log = logging.getLogger("zentra_inbox")


class Permanent(Exception):
    """Raise it in a handler if a retry cannot help. The answer is 422 with its message, which Zentra keeps."""


@dataclass(frozen=True)
class Event:
    """A verified event."""

    key: str
    """Its key: the signed `webhook-id`, the same as Zentra's `idempotency-key`."""
    body: bytes
    """The provider's exact bytes."""
    headers: Headers

    @property
    def type(self) -> str | None:
        """Its type (`ce-type`). The signature does not cover it."""
        return self.headers.get("ce-type")

    @property
    def attempt(self) -> int:
        """The number of the delivery attempt, from 1. The signature does not cover it."""
        text = self.headers.get("zentra-attempt") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` if it is none."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """The answer to a request: 200 done, 401 refused, 422 a handler's `Permanent`, 500 another error."""

    status: int
    text: str


class Inbox(Generic[T]):
    """Receives events, and runs a handler once for each, in a transaction that also stores the event's key."""

    def __init__(
        self,
        secrets: Sequence[str],
        store: Store[T],
        retention_days: float = 60,
        tolerance: float = TOLERANCE,
    ) -> None:
        """`secrets`: signing secrets of the sender, `whsec_…`.

        `retention_days`: how long keys are kept; longer than the sender can send an event again.
        `tolerance`: how long a signature is valid, in seconds.
        """
        if not retention_days > 0:
            raise ValueError("retention_days: give a number of days above 0")
        self._verifier = Verifier(secrets, tolerance)
        self._store = store
        self._retention = retention_days * DAY
        self._forgotten = -HOUR
        self._lock = threading.Lock()

    def create(self) -> None:
        """Creates the table `zentra_inbox`, if it does not exist. Call it once at the start."""
        self._store.create()

    def receive(
        self, headers: Headers, body: bytes, handler: Callable[[Event, T], object]
    ) -> Answer:
        """Receives one request. Raises nothing: errors are logged by the logger `zentra_inbox`.

        `handler(event, transaction)` writes the effect by `transaction`, and neither commits nor rolls back.
        """
        try:
            event = Event(self._verifier.verify(headers, body), body, headers)
            is_new = self._store.once(event.key, lambda transaction: handler(event, transaction))
            self._forget_sometimes()
        except Refused as error:
            return Answer(401, error.reason)
        except Permanent as error:
            return Answer(422, str(error))
        except Exception:
            log.exception("the event is not processed: the sender tries again")
            return Answer(500, "failed")
        return Answer(200, "done" if is_new else "done before")

    def forget(self) -> None:
        """Removes keys older than the retention. Runs by itself once an hour."""
        self._store.forget(self._retention)

    def _forget_sometimes(self) -> None:
        with self._lock:
            now = time.monotonic()
            is_due = now - self._forgotten >= HOUR
            if is_due:
                self._forgotten = now
        if not is_due:
            return
        try:
            self.forget()
        except Exception:
            log.exception("old keys are not removed: trying again in an hour")
