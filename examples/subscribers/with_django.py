"""A subscriber in Django. In a project of yours, the view and its line in the URLs are all that you need.

pip install crewcast django
WEBHOOK_KEYS="whsec_..." python with_django.py runserver 9000
"""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from crewcast.webhooks import (
    CrewEvent,
    Delivery,
    GapDetector,
    InProgress,
    SignatureError,
    SQLiteDeduper,
    StepEvent,
    TaskEvent,
    verify,
)

KEYS = os.environ["WEBHOOK_KEYS"].split()  # one, or two while a secret is rotated
FOLDER = os.environ.get("WEBHOOK_DATA", ".")

settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"], SECRET_KEY="not used here"
)

dedupe = SQLiteDeduper(f"{FOLDER}/seen.db")
gaps = GapDetector(f"{FOLDER}/gaps.db")


@csrf_exempt  # the signature says who calls
@require_POST
def receive(request: HttpRequest, channel: str) -> HttpResponse:
    try:
        delivery = verify(KEYS, request.headers, request.body)
    except SignatureError as e:
        return HttpResponse(str(e), status=401)
    try:
        with dedupe.once(delivery.id) as new:
            if new:
                handle(delivery)
    except InProgress as e:
        return HttpResponse(str(e), status=503)
    for number in gaps.see(delivery, channel):
        print(f"missing: event {number} of {delivery.kickoff_id} at /{channel}", flush=True)
    return HttpResponse(status=204)


def handle(delivery: Delivery) -> None:
    match delivery.event:
        case StepEvent(step=step, task_id=task):
            print(f"step: {task} {step.type} {step.tool or step.content or step.output}", flush=True)
        case TaskEvent(task_id=task, status=status, output=output):
            print(f"task: {task} {status}: {output}", flush=True)
        case CrewEvent(status=status, error=error):
            print(f"crew: {status} {error or ''}", flush=True)


urlpatterns = [path("<channel>", receive)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
