"""A subscriber in Flask.

pip install crewcast flask
WEBHOOK_KEYS="whsec_..." flask --app with_flask run --port 9000
"""

import os

from flask import Flask, request

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

app = Flask(__name__)
dedupe = SQLiteDeduper(f"{FOLDER}/seen.db")
gaps = GapDetector(f"{FOLDER}/gaps.db")


@app.post("/<channel>")
def receive(channel: str):
    try:
        delivery = verify(KEYS, request.headers, request.get_data())
    except SignatureError as e:
        return str(e), 401
    try:
        with dedupe.once(delivery.id) as new:
            if new:
                handle(delivery)
    except InProgress as e:
        return str(e), 503
    for number in gaps.see(delivery, channel):
        print(f"missing: event {number} of {delivery.kickoff_id} at /{channel}", flush=True)
    return "", 204


def handle(delivery: Delivery) -> None:
    match delivery.event:
        case StepEvent(step=step, task_id=task):
            print(f"step: {task} {step.type} {step.tool or step.content or step.output}", flush=True)
        case TaskEvent(task_id=task, status=status, output=output):
            print(f"task: {task} {status}: {output}", flush=True)
        case CrewEvent(status=status, error=error):
            print(f"crew: {status} {error or ''}", flush=True)
