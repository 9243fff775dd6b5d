"""A subscriber in FastAPI.

pip install crewcast fastapi uvicorn
WEBHOOK_KEYS="whsec_..." uvicorn with_fastapi:app --port 9000
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request

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

app = FastAPI()
dedupe = SQLiteDeduper(f"{FOLDER}/seen.db")
gaps = GapDetector(f"{FOLDER}/gaps.db")


async def verified(request: Request) -> Delivery:
    try:
        return verify(KEYS, request.headers, await request.body())
    except SignatureError as e:
        raise HTTPException(401, str(e)) from e


@app.post("/{channel}", status_code=204)
def receive(channel: str, delivery: Annotated[Delivery, Depends(verified)]) -> None:
    """No coroutine: FastAPI runs it in a thread, so the files that it waits for block nobody else."""
    try:
        with dedupe.once(delivery.id) as new:
            if new:
                handle(delivery)
    except InProgress as e:
        raise HTTPException(503, str(e)) from e
    for number in gaps.see(delivery, channel):
        print(f"missing: event {number} of {delivery.kickoff_id} at /{channel}", flush=True)


def handle(delivery: Delivery) -> None:
    match delivery.event:
        case StepEvent(step=step, task_id=task):
            print(f"step: {task} {step.type} {step.tool or step.content or step.output}", flush=True)
        case TaskEvent(task_id=task, status=status, output=output):
            print(f"task: {task} {status}: {output}", flush=True)
        case CrewEvent(status=status, error=error):
            print(f"crew: {status} {error or ''}", flush=True)
