"""The signatures of the reference library (tests/vectors), and rules that have no vector."""

import json
import logging
import os
import unittest
from collections.abc import Callable
from typing import Any

from zentra_inbox import Answer, Event, Inbox, Permanent, Refused, Verifier

with open(os.environ["ZENTRA_VECTORS"]) as file:
    VECTORS = json.load(file)
VALID = next(one for one in VECTORS["cases"] if one["name"] == "valid")
HEADERS, BODY = VALID["headers"], VALID["body"].encode()
OTHER = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def verdict(secrets: list[str], headers: dict[str, str], body: bytes) -> str:
    try:
        Verifier(secrets).verify(headers, body, VECTORS["now"])
        return "ok"
    except Refused as refused:
        return refused.reason


class Memory:
    """Stores nothing."""

    def create(self) -> None:
        pass

    def once(self, key: str, work: Callable[[Any], object]) -> bool:
        work(None)
        return True

    def forget(self, seconds: float) -> None:
        raise RuntimeError("the database is away")


class VerifyTest(unittest.TestCase):
    def test_each_vector_of_the_reference_library_has_its_verdict(self) -> None:
        self.assertGreaterEqual(len(VECTORS["cases"]), 12)
        for case in VECTORS["cases"]:
            seen = verdict([VECTORS["secret"]], case["headers"], case["body"].encode())
            # Several reasons are possible where the vector only says that it is refused.
            if case["expect"] == "refused":
                self.assertNotEqual(seen, "ok", case["name"])
            else:
                self.assertEqual(seen, case["expect"], case["name"])

    def test_secrets_and_signatures_rotate(self) -> None:
        for secrets in ([OTHER, VECTORS["secret"]], [VECTORS["secret"], OTHER]):
            self.assertEqual(verdict(secrets, HEADERS, BODY), "ok")
        signatures = f"v1,{'A' * 43}= v2,x {HEADERS['webhook-signature']}"
        rotated = {**HEADERS, "webhook-signature": signatures}
        self.assertEqual(verdict([VECTORS["secret"]], rotated, BODY), "ok")
        self.assertEqual(verdict([OTHER], rotated, BODY), "signature_mismatch")

    def test_each_flipped_byte_of_the_body_is_refused(self) -> None:
        for at in range(len(BODY)):
            body = bytearray(BODY)
            body[at] ^= 1
            self.assertEqual(verdict([VECTORS["secret"]], HEADERS, bytes(body)), "signature_mismatch")

    def test_wrong_settings_are_named(self) -> None:
        wrong: list[Any] = [[], None, ["whsec_"], ["not base64"], [None], ["whsec_abc"], OTHER]
        for secrets in wrong:
            with self.assertRaisesRegex(ValueError, "secrets"):
                Verifier(secrets)
        with self.assertRaisesRegex(ValueError, "tolerance"):
            Verifier([OTHER], tolerance=float("nan"))
        with self.assertRaisesRegex(ValueError, "retention_days"):
            Inbox([OTHER], Memory(), retention_days=0)

    def test_what_a_handler_raises_decides_the_answer(self) -> None:
        logging.disable(logging.CRITICAL)
        inbox = Inbox([VECTORS["secret"]], Memory(), tolerance=1e10)

        def raised(error: Exception) -> Answer:
            def handle(event: Event, transaction: None) -> None:
                raise error

            return inbox.receive(HEADERS, BODY, handle)

        self.assertEqual(raised(Permanent("no account")), Answer(422, "no account"))
        # Nothing of another error is in the answer.
        self.assertEqual(raised(RuntimeError("password")), Answer(500, "failed"))
        parsed: Any = {"parsed": True}
        self.assertEqual(inbox.receive(HEADERS, parsed, print).status, 500)
        seen: list[Any] = []
        done = inbox.receive(HEADERS, BODY, lambda event, _: seen.append(event.json()["id"]))
        self.assertEqual((done, seen), (Answer(200, "done"), ["evt_1"]))


if __name__ == "__main__":
    unittest.main()
