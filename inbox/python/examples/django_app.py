"""Django and its database, in one file. A project has the settings and the models in their own places."""

import os

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import models
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from zentra_inbox import DjangoStore, Inbox

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    ROOT_URLCONF=__name__,
)
django.setup()


class Transfer(models.Model):
    transfer = models.TextField(primary_key=True)

    class Meta:
        app_label = "shop"
        db_table = "ledger"


inbox = Inbox([os.environ["LEDGER_SIGNING"]], DjangoStore())
inbox.create()


def book(event, connection):
    Transfer.objects.create(transfer=event.json()["id"])


@csrf_exempt
@require_POST
def webhooks(request):
    answer = inbox.receive(request.headers, request.body, book)
    return HttpResponse(answer.text, status=answer.status, content_type="text/plain")


urlpatterns = [path("webhooks", webhooks)]

if __name__ == "__main__":
    execute_from_command_line()
