"""Deliveries as `verify` gives them, in few words."""

from crewcast.webhooks import Delivery
from crewcast.webhooks.events import event_of


def delivery(payload=None, *, event_id="e", run="k", lane_seq=1, attempt=1) -> Delivery:
    body = {"kickoff_id": run} | (payload or {})
    return Delivery(
        id=event_id,
        timestamp=0,
        kickoff_id=run,
        payload=body,
        type="",
        run_seq=1,
        lane_seq=lane_seq,
        run_attempt=attempt,
        delivery_attempt=1,
        replay=False,
        pending=None,
        event=event_of(body),
    )


def step(event_id, task_id, attempt, run="k") -> Delivery:
    payload = {"step": {"type": "thought"}} | ({} if task_id is None else {"task_id": task_id})
    return delivery(payload, event_id=event_id, run=run, attempt=attempt)


def task(task_id, attempt, status="completed", run="k") -> Delivery:
    return delivery({"task_id": task_id, "status": status}, run=run, attempt=attempt)


def crew(attempt, run="k") -> Delivery:
    return delivery({"status": "completed"}, run=run, attempt=attempt)
