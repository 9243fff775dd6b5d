"""A crew or flow, run from its kickoff, or from where an earlier process left it, to the line that says how it ended."""

import sys
import time
from typing import Any

from . import crews, errors, events, extractors, flows, internals, project, reviews, threads
from .channel import Channel
from .feedback import Feedback
from .flow_journal import FlowJournal
from .journal import FlowJournals, Journal, Unresumable, llms_of
from .stops import Control
from .tasks import TaskBook

Line = dict[str, Any]


class Run:
    """Made once; `line()` is called once, in the same thread."""

    def __init__(
        self, loaded: project.Loaded, job: Line, description: Line, channel: Channel, control: Control
    ) -> None:
        self._value = loaded.value
        self._inputs = {**loaded.defaults, **(job.get("inputs") or {})}
        self._job = job
        self._description = description
        self._channel = channel
        self._control = control
        self._is_flow = flows.is_flow(self._value)
        self._book = TaskBook([] if self._is_flow else self._value.tasks)
        self._begin = time.monotonic()
        self._journal: Journal | FlowJournal | FlowJournals | None = None
        if job.get("journal") is not None:
            self._journal = self._kept(job["journal"], control)
            self._journal.answered = not internals.missing(internals.ASKING)

    def _kept(self, entries: Line, control: Control) -> Journal | FlowJournal | FlowJournals:
        if not self._is_flow:
            return Journal(self._value, entries, control)
        if "flow" not in entries and internals.missing(internals.FLOWS):
            return FlowJournals(control)
        return FlowJournal(self._value, entries, control, self._book, self._job.get("decision"))

    def line(self) -> Line:
        """How it ended."""
        try:
            impossible = self._impossible()
        except Unresumable as error:
            assert isinstance(self._journal, Journal | FlowJournal)
            return failed("refused", str(error), "", self._journal.done(), 0.0)
        if impossible is not None:
            return impossible
        self._begin = time.monotonic()
        sink = self._listen()
        self._channel.send({"op": "started", "tasks": None if self._is_flow else self._book.overview()})
        try:
            self._control.check()
            kick_off = flows.kick_off if self._is_flow else crews.kick_off
            output, usage = kick_off(self._value, self._inputs)
            if isinstance(self._journal, FlowJournal):
                usage = self._journal.usage()
                for where in self._journal.unused():
                    sys.stderr.write(
                        "crewcast: a decision was not used, the flow took another way: " + where + "\n"
                    )
        except BaseException as error:
            return self._failed(error, sink)
        if sink.refusal is not None:
            # The project has caught it and gone on.
            return self._ended(sink.refusal)
        return {
            "op": "finished",
            "output": output,
            "tasks": sink.close("the run ended before the tool did", completed=True),
            "seconds": self._seconds(),
            "usage": None if usage is None else dict(usage),
        }

    def _impossible(self) -> Line | None:
        """Why nothing is kicked off, if so; else the crew is where it is to go on."""
        if self._is_flow:
            refusal = flows.refusal(self._value, asks=self._asks_feedback())
        else:
            asks = self._journal is not None and self._journal.answered
            refusal = crews.refusal(self._value, asks=asks)
        if refusal is not None:
            return failed("refused", refusal, "", [], 0.0)
        if isinstance(self._journal, Journal | FlowJournal):
            self._journal.check()
            restored = (
                self._journal.restore()
                if isinstance(self._journal, FlowJournal)
                else self._journal.restore(self._book)
            )
            self._inputs = self._inputs if restored is None else restored
            if not self._is_flow:
                self._control.counted(llms_of(self._value))
        missing = [name for name in self._description["required"] if name not in self._inputs]
        if missing and not self._description["before_kickoff"]:
            # CrewAI itself looks only when there are any inputs, and else sends the braces to the model.
            return failed("input", ", ".join(missing) + self._takes(), "", [], 0.0)
        return None

    def _asks_feedback(self) -> bool:
        """Whether people are asked what a flow's methods ask."""
        journal = self._journal
        return (
            isinstance(journal, FlowJournal)
            and not journal.obstacles
            and not internals.missing(internals.FEEDBACK)
        )

    def _listen(self) -> events.Sink:
        """From now on everything that CrewAI does is heard, and those are asked whom it asks."""
        sink = events.Sink(
            self._channel,
            self._book,
            self._value if self._is_flow else None,
            lambda early: self._channel.send_last(self._ended(early)),
            self._control,
            self._journal,
        )
        events.listen(sink)
        inherited = sink.places()
        if isinstance(self._journal, FlowJournal):
            inherited.append(self._journal.attach(sink, self._channel.send, self._tell))
            if self._asks_feedback() and flows.asking(self._value):
                Feedback(self._journal).install()
        elif self._journal is not None:
            if isinstance(self._journal, Journal):
                self._journal.attach(self._channel.send)
            if self._journal.answered:
                asking = reviews.Reviews(
                    self._journal, self._book, self._job.get("decision"), sink, self._control, self._tell
                )
                inherited.append(asking.install())
        threads.inherit(inherited)
        crews.leave_places(sink.places())
        crews.release_async_tasks()
        return sink

    def _failed(self, error: BaseException, sink: events.Sink) -> Line:
        """What ended the kickoff."""
        done = sink.close("the run failed before the tool ended", completed=False)
        early = sink.refusal or (error if isinstance(error, extractors.Refused) else None)
        if early is not None:
            return self._ended(early)
        if self._is_flow and errors.has_frame(error, "_initialize_state") and not sink.methods.any_began:
            return failed("invalid", flows.misfit(error) + self._takes(), "", [], self._seconds())
        kind, hint = "crew", ""
        if not self._is_flow and crews.is_missing_input(error) and not self._book.any_started():
            kind, hint = "input", self._takes()
        summary = errors.summary(error, self._job["project"]["root"]) + hint
        return failed(kind, summary, errors.report(error), done, self._seconds())

    def _ended(self, early: extractors.Refused) -> Line:
        """A run that ends before the crew does."""
        if isinstance(early, reviews.Paused):
            return {**early.line, "seconds": self._seconds()}
        return failed(early.kind, str(early), "", self._book.finished(), self._seconds())

    def _tell(self, line: Line) -> None:
        self._channel.send({**line, "seconds": self._seconds()})

    def _takes(self) -> str:
        what = "flow" if self._is_flow else "crew"
        return "; the " + what + " takes: " + (", ".join(self._description["inputs"]) or "nothing")

    def _seconds(self) -> float:
        return round(time.monotonic() - self._begin, 6)


def failed(kind: str, error: str, trace: str, tasks: list[Line], seconds: float) -> Line:
    return {
        "op": "failed",
        "kind": kind,
        "error": error,
        "traceback": trace,
        "tasks": tasks,
        "seconds": seconds,
    }
