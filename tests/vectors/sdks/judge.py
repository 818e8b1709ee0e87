"""What a vendor's SDK for Python says of a callback, which stands on the standard input as JSON.

Ends with 0 if it takes it.
"""

import json
import sys
from types import SimpleNamespace
from urllib.parse import parse_qsl

from freezegun import freeze_time


def increase(secret, headers, body, **_):
    from increase import Increase

    Increase(api_key="none", webhook_secret=secret).events.unwrap(body, headers=headers)
    return True


def mailgun(secret, body, **_):
    from mailgun.security import SecurityGuard

    if body.startswith("{"):
        return SecurityGuard.verify_webhook(secret, **json.loads(body)["signature"])
    fields = dict(parse_qsl(body))
    names = ("timestamp", "token", "signature")
    return SecurityGuard.verify_webhook(secret, **{name: fields[name] for name in names})


def paypal(secret, headers, body, key, **_):
    from paypalrestsdk import notifications

    # Its certificate is served to it, and signed by nobody whom it trusts: of its checks this alone
    # is left out.
    notifications.requests.get = lambda _url: SimpleNamespace(text=key)
    event = notifications.WebhookEvent
    event._verify_certificate_chain = classmethod(lambda cls, cert: True)
    return event.verify(
        headers["paypal-transmission-id"],
        headers["paypal-transmission-time"],
        secret,
        body,
        headers["paypal-cert-url"],
        headers["paypal-transmission-sig"],
        headers["paypal-auth-algo"],
    )


if __name__ == "__main__":
    callback = json.load(sys.stdin)
    judge = {"increase": increase, "mailgun": mailgun, "paypal": paypal}[sys.argv[1]]
    with freeze_time(callback.pop("now")):
        sys.exit(0 if judge(**callback) else 1)
