"""Verifies requests by Standard Webhooks (https://www.standardwebhooks.com), symmetric keys."""

import binascii
import hmac
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

# Time between the signature and its check, in seconds: the specification's recommendation.
TOLERANCE = 300
# Maximum length of a key: the column of MySQL has this width.
MAX_KEY = 512
# Maximum number of signatures that are looked at.
MAX_SIGNATURES = 32


class Headers(Protocol):
    """The headers of a request, as frameworks have them. Names ignore case, or are in lower case."""

    def get(self, name: str, /) -> str | None:
        """The value of a header."""


class Refused(Exception):
    """A request without a valid signature. `reason` says why: it is safe to answer with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Verifier:
    """Checks signatures of one sender. Each secret verifies, so that secrets can be rotated."""

    def __init__(self, secrets: Sequence[str], tolerance: float = TOLERANCE) -> None:
        """Raises `ValueError` for a secret that is not `whsec_` and Base64. Does not name its text."""
        if isinstance(secrets, str) or not secrets:
            raise ValueError("secrets: give a list of at least one signing secret (whsec_…)")
        if not tolerance >= 0:
            raise ValueError("tolerance: give a number of seconds")
        self._keys = [_decoded(secret, at) for at, secret in enumerate(secrets)]
        self._tolerance = tolerance

    def verify(self, headers: Headers, body: bytes, now: float | None = None) -> str:
        """Returns the event's key: `webhook-id`, which the signature covers. Raises `Refused`.

        `now` is in seconds since 1970.
        """
        if not isinstance(body, bytes):
            raise TypeError("body: give the raw bytes of the request, not a parsed object")
        key, signed_at = headers.get("webhook-id"), headers.get("webhook-timestamp")
        signatures = headers.get("webhook-signature")
        if not key or not signed_at or not signatures:
            raise Refused("signature_missing")
        if len(key) > MAX_KEY or not re.fullmatch("[!-~]+", key):
            raise Refused("id_invalid")
        if not re.fullmatch("[0-9]{1,12}", signed_at):
            raise Refused("timestamp_invalid")
        signed = f"{key}.{signed_at}.".encode() + body
        expected = [b64encode(hmac.digest(one, signed, sha256)) for one in self._keys]
        given = [
            one[3:].encode(errors="replace")
            for one in signatures.split(" ")[:MAX_SIGNATURES]
            if one.startswith("v1,")
        ]
        if not any(hmac.compare_digest(one, other) for one in given for other in expected):
            raise Refused("signature_mismatch")
        now = time.time() if now is None else now
        if int(signed_at) < now - self._tolerance:
            raise Refused("timestamp_stale")
        if int(signed_at) > now + self._tolerance:
            raise Refused("timestamp_future")
        return key


def _decoded(secret: str, at: int) -> bytes:
    try:
        key = b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except (AttributeError, binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"secrets[{at}]: not a signing secret: whsec_ and Base64")
    return key
