"""Deliveries as `verify` gives them, in few words."""

from crewcast.webhooks import Delivery
from crewcast.webhooks.events import event_of


def delivery(payload=None, *, event_id="e", run="k", lane_seq=1, attempt=1, seq=1) -> Delivery:
    body = {"kickoff_id": run} | (payload or {})
    return Delivery(
        id=event_id,
        timestamp=0,
        kickoff_id=run,
        payload=body,
        type="",
        run_seq=seq,
        lane_seq=lane_seq,
        run_attempt=attempt,
        delivery_attempt=1,
        replay=False,
        pending=None,
        event=event_of(body),
    )


def step(event_id, task_id, attempt, run="k", seq=1) -> Delivery:
    payload = {"step": {"type": "thought"}} | ({} if task_id is None else {"task_id": task_id})
    return delivery(payload, event_id=event_id, run=run, attempt=attempt, seq=seq)


def task(task_id, attempt, status="completed", run="k", seq=1) -> Delivery:
    return delivery({"task_id": task_id, "status": status}, run=run, attempt=attempt, seq=seq)


def crew(attempt, run="k") -> Delivery:
    return delivery({"status": "completed"}, run=run, attempt=attempt)
