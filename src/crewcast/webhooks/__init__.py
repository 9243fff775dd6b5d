"""What a subscriber installs: verify a delivery, and know what it is. Standard library only.

from crewcast.webhooks import MemoryDeduper, SignatureError, StepEvent, verify

delivery = verify(secret, request.headers, request.body)   # raises SignatureError: answer 401
with dedupe.once(delivery.id) as new:                       # at least once: drop repetitions
    if new and isinstance(delivery.event, StepEvent):
        print(delivery.event.step.content)

`GapDetector` tells which events never came, `Superseded` which steps a later try of the run has made void.
"""

from crewcast.core.errors import InProgress, SignatureError, UsageError
from crewcast.webhooks.dedupe import Deduper, MemoryDeduper, SQLiteDeduper
from crewcast.webhooks.events import (
    CrewEvent,
    CrewResult,
    Event,
    HumanInputEvent,
    Step,
    StepEvent,
    TaskEvent,
    TaskResult,
    UnknownEvent,
)
from crewcast.webhooks.gaps import GapDetector
from crewcast.webhooks.superseded import Superseded
from crewcast.webhooks.verification import TOLERANCE, Delivery, verify

__all__ = [
    "TOLERANCE",
    "CrewEvent",
    "CrewResult",
    "Deduper",
    "Delivery",
    "Event",
    "GapDetector",
    "HumanInputEvent",
    "InProgress",
    "MemoryDeduper",
    "SQLiteDeduper",
    "SignatureError",
    "Step",
    "StepEvent",
    "Superseded",
    "TaskEvent",
    "TaskResult",
    "UnknownEvent",
    "UsageError",
    "verify",
]
