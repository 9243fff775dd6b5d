"""CrewAI's events as lines for the server.

The sink is called in the thread that emits, for every event of this process, in order. What a line says of an event
is in `extractors.py`.
"""

import importlib
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from .channel import Channel, out_of_memory
from .extractors import EXTRACTORS, TASK_ENDS, Extractor, Fields, Refused, result
from .flows import MethodCall, Methods
from .tasks import TaskBook
from .tools import OpenCalls

LEFT = "cancelled: the run went on without it"


class Told(Exception):
    """An earlier process of the run has told this."""


class Record(Protocol):
    """What a run keeps for a process that goes on with it."""

    def asks(self, crew: Any) -> bool:
        """Whether the people who this crew asks are asked."""

    def begun(self, crew: Any, event: Any) -> None:
        """The run's crew was kicked off."""

    def beside(self, kind: str, source: Any, fields: Fields) -> Fields | None:
        """What is committed together with this line."""

    def resumes(self, task_id: str) -> bool:
        """Whether the beginning of this task was told by an earlier process."""

    def gave_ids(self, crew: Any) -> bool:
        """Whether the tasks of this crew have their ids already."""

    def method_began(self, call: MethodCall) -> None:
        """The run's flow executes a method: what an earlier process told of that is noted in the call."""


class Sink:
    """Hears every event. It raises nothing but Refused: CrewAI would take that for the agent's failure and try again.

    `flow` is the flow that is run, if it is one: its crews' tasks and its methods are the run's tasks. `refuse` tells
    the server that the run ends; from then on each event raises, so that no thread of the project goes on. Make it in
    the thread that kicks off.
    """

    def __init__(
        self,
        channel: Channel,
        book: TaskBook,
        flow: Any = None,
        refuse: Callable[[Refused], None] | None = None,
        watch: Callable[[Any, Any], None] | None = None,
        record: Record | None = None,
    ) -> None:
        self.book = book
        self.flow = flow
        self.record = record
        self.refusal: Refused | None = None
        self.methods = Methods(book)
        self.calls = OpenCalls()
        self._channel = channel
        # Lines leave in the order in which what they tell was noted here: no step slips in behind the end of its task.
        self._order = threading.RLock()
        self._over = False
        self._refuse = refuse
        self._watch = watch

    def __call__(self, source: Any, event: Any) -> None:
        if self.refusal is not None:
            raise Refused(str(self.refusal))
        if self._watch is not None:
            try:
                self._watch(source, event)
            except Refused as refused:
                self.end(refused)
                raise
        extract = EXTRACTORS.get(event.type)
        if extract is None or self._channel.closed:
            return
        number = None
        try:
            number = self._tell(extract, source, event)
        except Refused as refused:
            self.end(refused)
            raise
        except MemoryError:
            out_of_memory()
        except Exception:
            sys.stderr.write("crewcast: an event of CrewAI could not be read\n")
            traceback.print_exc()
        if number is not None:
            self._channel.wait(number)

    def _tell(self, extract: Extractor, source: Any, event: Any) -> int | None:
        """The number to wait for, if there is one."""
        with self._order:
            fields = None if self._over else self._read(extract, source, event)
            if fields is None:
                return None
            kind = fields.pop("type", event.type)
            if self.record is not None:
                fields["journal"] = self.record.beside(kind, source, fields)
            return self._send(kind, fields)

    def _read(self, extract: Extractor, source: Any, event: Any) -> Fields | None:
        try:
            return extract(self, source, event)
        except Told:
            return None

    def place(self, uuid: Any, agent: str | None) -> str | None:
        """The task that an event belongs to: the one around it (CrewAI names another for delegated work, and where tasks
        side by side share an agent); else its own; else the flow's method. None if it belongs to none, or that one has
        ended.
        """
        task_id = self.book.current() or self.book.known(uuid)
        if task_id is not None and self.book.has_started(task_id):
            return None if self.book.is_over(task_id) else task_id
        method = self.methods.current()
        if method is None or self.methods.in_crew():
            # What a crew does around its tasks (its planning) is no work of the method.
            return None
        if method.told:
            raise Told
        method.stepped = True
        if agent is not None:
            method.agents.add(agent)
        return method.task_id()

    def nested(self) -> bool:
        """Whether this code runs inside a task, in a tool say, or is left over from one."""
        return bool(self.book.current())

    def at_work(self, agent: str | None) -> bool:
        """Whether a call of a model or of a function is a step: an agent's is, and what a flow's method does itself.

        Others serve something else: memory, knowledge, a converter, a tool.
        """
        return agent is not None or (
            not self.nested() and self.methods.current() is not None and not self.methods.in_crew()
        )

    def places(self) -> list[ContextVar[Any]]:
        """What says in a context where in the run its code belongs."""
        return [self.book.place(), *self.methods.places()]

    def close(self, why: str, *, completed: bool) -> list[dict[str, Any]]:
        """Nothing is told from now on. What has begun gets its end: the calls, and in a run that is completed also the
        tasks (a crew that a time limit cancelled, a method that lost a race). Returns the tasks that are done.
        """
        with self._order:
            self._over = True
            self.abandon_calls(None, why)
            for task_id, agent in self.book.left_open() if completed else []:
                seconds = self.book.seconds(task_id)
                told = {"task_id": task_id, "agent": agent, "error": LEFT, "execution_time": seconds}
                self._send("task_failed", told)
                self.book.end(task_id)
            return self.book.finished()

    def end(self, refused: Refused) -> None:
        """The run ends here, whatever the project makes of what is raised."""
        with self._order:
            if self.refusal is None:
                self.refusal = refused
                self.close("the run ended before the tool did", completed=False)
                if self._refuse is not None:
                    self._refuse(refused)

    def abandon_calls(self, task_id: str | None, reason: str) -> None:
        """Give the calls that will never end (of one task, or of all) a result."""
        for call in self.calls.abandon(task_id):
            self._send("tool_usage_error", {**result(call), "args": call.args, "error": reason})

    def _send(self, kind: str, fields: Fields) -> int | None:
        """The number to wait for at the end of a task: the crew goes on when the server has committed it."""
        line = {"op": "event", "type": kind, "at": time.time_ns() // 1000}
        line.update((name, value) for name, value in fields.items() if value is not None)
        if kind in TASK_ENDS:
            return self._channel.send_numbered(line)
        self._channel.send(line)
        return None


def listen(sink: Sink) -> None:
    """Have the sink hear every event of this process, once its place in the run is set.

    CrewAI's stream sinks would hear only what a context that inherited them emits, no thread that a project starts by
    itself, and releases before 1.15.2 have none. A process is one run, so everything in it is the run's.
    """
    bus_class = importlib.import_module("crewai.events.event_bus").CrewAIEventsBus
    emit, aemit = bus_class.emit, getattr(bus_class, "aemit", None)

    def emit_and_tell(self: Any, source: Any, event: Any) -> Any:
        future = emit(self, source, event)
        sink(source, event)
        return future

    async def aemit_and_tell(self: Any, source: Any, event: Any) -> None:
        assert aemit is not None
        await aemit(self, source, event)
        sink(source, event)

    bus_class.emit = emit_and_tell
    if aemit is not None:
        bus_class.aemit = aemit_and_tell
