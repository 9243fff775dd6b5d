"""The crews of a flow, each kickoff with a journal of its own: it answers again, goes on, or asks a person."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .extractors import Refused
from .flows import MethodCall
from .journal import Journal, Unresumable, llms_of
from .outputs import Entries, load_output, survives
from .packing import Unpackable, class_name, pack, unpack
from .reviews import Line, Paused, Reviews, reviewed
from .tasks import TaskBook
from .wire import plain, text

if TYPE_CHECKING:
    from .flow_journal import FlowJournal


class CrewJournal(Journal):
    """The journal of one kickoff in a flow."""

    def __init__(self, call: "CrewCall", crew: Any, ids: "list[str]", given: Any) -> None:
        names = len(call.key) + 1
        entries = {
            name[names:]: value
            for name, value in call.flow.entries.items()
            if name.startswith(call.key + "/")
        }
        super().__init__(crew, entries, call.flow.control)
        self.ids = ids
        self.id_of = {id(task): task_id for task_id, task in zip(ids, crew.tasks, strict=True)}
        self.answered = call.flow.answered
        self._call = call
        self._given = given
        self._send = lambda line: call.flow.keep(call.named(line["journal"]))

    def begun(self, crew: Any, event: Any) -> None:
        if crew is self.crew and not crew.before_kickoff_callbacks and not survives(event.inputs):
            # Nothing but the flow's own code has made them, which makes them again.
            event = event.model_copy(update={"inputs": None})
        super().begun(crew, event)

    def restore(self, book: TaskBook) -> "dict[str, Any] | None":
        run = self.run
        if run is None:
            return None
        for task in self.crew.tasks:
            # The object may have been kicked off before.
            task.output = None
        context = importlib.import_module("crewai.events.event_context")
        outer = context._event_id_stack.get()  # noqa: SLF001
        inputs = super().restore(book)
        context.restore_event_scope((*outer, (run["kickoff_event_id"], "crew_kickoff_started")))
        return self._given if inputs is None else inputs

    def position(self, reached: int = -1) -> Entries:
        finished = [n for n, task_id in enumerate(self.ids) if "task:" + task_id in self.entries]
        # By its place among all tasks of the run.
        before = [self.ids.index(self._call.flow.book.overview()[reached]["task_id"])] if reached >= 0 else []
        last = max([-1, *before, *finished])
        skipped = [
            task_id
            for n, (task_id, task) in enumerate(zip(self.ids, self.crew.tasks, strict=True))
            if hasattr(task, "condition") and n < last and "task:" + task_id not in self.entries
        ]
        return {
            "usage": [dict(llm._token_usage) for llm in llms_of(self.crew)],  # noqa: SLF001
            "spent": dict(self._control.spent),
            **({"skipped": skipped} if skipped else {}),
        }

    def _finished(self, task: Any, fields: Entries) -> Entries:
        # Before those before it are looked at.
        self.entries["task:" + fields["task_id"]] = {}
        entries = super()._finished(task, fields)
        if "pending" in entries:
            entries["decision"] = None
        return entries


class CrewCall:
    """One kickoff of a crew in the flow."""

    def __init__(
        self, flow: "FlowJournal", key: str, crew: Any, given: Any, method: "MethodCall | None"
    ) -> None:
        self.flow = flow
        self.key = key
        self.inputs = given
        self._method = method
        ids = flow.entries[key + "/call"]["tasks"]
        self.journal = CrewJournal(self, crew, ids, given)
        self.reviews = CrewReviews(self)
        if not self.is_over():
            flow.book.add(crew.tasks, ids)

    def named(self, entries: Entries) -> Entries:
        """By the names that they have in the run's journal."""
        return {name if name == "spent" else self.key + "/" + name: value for name, value in entries.items()}

    def beside(self, kind: str, source: Any, fields: Entries) -> Entries:
        """What is committed with an event of one of its tasks."""
        if kind == "task_completed" and self.journal.obstacles:
            # It is told, and no other process may do it again.
            return {"task:" + fields["task_id"]: {"told": told_of(fields), "problem": self._obstacle()}}
        return self.journal.beside(kind, source, fields) or {}

    def has_problem(self) -> bool:
        """Whether it has done what no other process could go on with."""
        return any(isinstance(value, dict) and "problem" in value for value in self.journal.entries.values())

    def is_over(self) -> bool:
        return any(name in self.journal.entries for name in ("done", "failed"))

    def answer(self) -> Any:
        """What the crew has returned, in an earlier process; raises what it has raised."""
        crew, entries = self.journal.crew, self.journal.entries
        entry = entries.get("done") or entries["failed"]
        if "problem" in entry:
            raise self.flow.refuse(entry["problem"])
        self.journal._restore_usage()  # noqa: SLF001
        self.flow.control.counted(llms_of(crew))
        if "failed" in entries:
            error = _raisable(entry)
            if self._method is not None:
                self._method.task_failed(text(error))
            raise error
        output = unpack(entry["value"])
        for task_id, task in zip(self.journal.ids, crew.tasks, strict=True):
            of_task = entries.get("task:" + task_id)
            if of_task is not None and "output" in of_task:
                task.output = load_output(of_task["output"], task)
        crew.usage_metrics = getattr(output, "token_usage", None)
        return output

    @contextmanager
    def at_work(self) -> "Iterator[list[Any]]":
        """Around the kickoff, whose output is put into the list."""
        output: list[Any] = []
        before = _Kept(self.journal.crew)
        try:
            self._prepare()
            try:
                yield output
            except Exception as error:
                if self.flow.sink.refusal is None:
                    self.flow.keep({self.key + "/failed": self._checked(_failure(error, self._where()))})
                raise
            self.flow.keep(
                {
                    self.key + "/done": self._checked(self._output(output[0])),
                    "usage": self.flow.usage(),
                    "spent": dict(self.flow.control.spent),
                }
            )
        finally:
            before.put_back()
            self.flow.end(self)

    def _prepare(self) -> None:
        crew, journal, flow = self.journal.crew, self.journal, self.flow
        for task in reviewed(crew) if flow.answered else []:
            # Beside others it could not wait: it would leave them behind.
            task.async_execution = False
        if journal.obstacles and journal.done():
            raise flow.refuse(self._obstacle())
        try:
            journal.check()
            if journal.run is None:
                return
            self.inputs = journal.restore(flow.book)
        except Unresumable as error:
            raise flow.refuse(str(error)) from error
        flow.control.counted(llms_of(crew))
        # CrewAI says nothing of the beginning of a crew that goes on.
        flow.sink.methods.enter_crew()

    def _checked(self, entry: Entries) -> Entries:
        if "problem" in entry:
            self.flow.stuck.add(self.key + "/over")
        return entry

    def _output(self, output: Any) -> Entries:
        try:
            return {"value": pack(output)}
        except Unpackable as error:
            return {"problem": "what " + self._where() + " returned is no JSON: " + text(error)}

    def _obstacle(self) -> str:
        return self._where() + ": " + "; ".join(self.journal.obstacles)

    def _where(self) -> str:
        return "the crew in the method " + self._method.name if self._method is not None else "a crew"


class _Kept:
    """What going on changes in a crew, which the flow may kick off again."""

    OF_A_CREW = ("checkpoint_kickoff_event_id", "before_kickoff_callbacks")
    OF_A_TASK = ("guardrail_max_retries", "condition")

    def __init__(self, crew: Any) -> None:
        self._kept = [(crew, name, getattr(crew, name)) for name in self.OF_A_CREW if hasattr(crew, name)]
        for task in crew.tasks:
            self._kept += [
                (task, name, getattr(task, name)) for name in self.OF_A_TASK if hasattr(task, name)
            ]
        self._crew = crew

    def put_back(self) -> None:
        for owner, name, value in self._kept:
            setattr(owner, name, value)
        for name in ("_handle_crew_planning", "_get_agent_to_use"):
            vars(self._crew).pop(name, None)
        for task in self._crew.tasks:
            for name in ("execute_sync", "execute_async"):
                vars(task).pop(name, None)


class CrewReviews(Reviews):
    """Asks people for one kickoff."""

    def __init__(self, call: CrewCall) -> None:
        flow = call.flow
        super().__init__(
            call.journal,
            flow.book,
            flow.entries.get(call.key + "/decision"),
            flow.sink,
            flow.control,
            flow.tell,
        )
        self._call = call

    def _ask(self, answer: Any, context: Any) -> Line:
        self._call.flow.check_path(self._call.key)
        return super()._ask(answer, context)

    def _pending(self, journal: Journal, answer: Any, context: Any, line: Line) -> "Entries | None":
        flow = self._call.flow
        held = flow.is_held(self._call.key)
        pending = None if held else super()._pending(journal, answer, context, line)
        if pending is None:
            flow.stuck.add(self._call.key)
        return pending

    def _wait(self, line: Line) -> Entries:
        return self._call.flow.wait(line)

    def _end(self, refused: Refused) -> Refused:
        if isinstance(refused, Paused):
            call = self._call
            refused.line = call.flow.paused(call.key, refused.line, call.named(refused.line["journal"]))
        return super()._end(refused)


class People:
    """CrewAI's human input provider: asks for the crew that a task belongs to."""

    def __init__(self, flow: "FlowJournal") -> None:
        self._flow = flow

    def _reviews(self, context: Any) -> "CrewReviews | None":
        call = self._flow.crew_of(context.task)
        return None if call is None else call.reviews

    def setup_messages(self, context: Any) -> bool:
        found = self._reviews(context)
        return found is not None and found.setup_messages(context)

    def post_setup_messages(self, context: Any) -> None:
        pass

    def handle_feedback(self, formatted_answer: Any, context: Any) -> Any:
        return self._needed(context).handle_feedback(formatted_answer, context)

    async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
        return await self._needed(context).handle_feedback_async(formatted_answer, context)

    def _needed(self, context: Any) -> CrewReviews:
        found = self._reviews(context)
        if found is None:
            refused = Refused("human_input=True is supported for the tasks of the crew itself")
            self._flow.sink.end(refused)
            raise refused
        return found


def told_of(fields: Entries) -> Entries:
    """What a finished task's event tells of it."""
    names = ("task_id", "agent", "output", "execution_time")
    return {name: fields[name] for name in names if fields.get(name) is not None}


def _failure(error: Exception, where: str) -> Entries:
    """The exception as JSON."""
    entry = {"class": class_name(type(error)), "arguments": plain(list(error.args)), "text": text(error)}
    try:
        again = _raisable(entry)
        if type(again) is type(error) and text(again) == text(error) and survives(list(error.args)):
            return entry
    except Exception:  # noqa: S110 - an exception's class may do anything with what it is made of
        pass
    return {"problem": where + " failed with what cannot be raised again: " + text(error)}


def _raisable(entry: Entries) -> Exception:
    module, _, path = entry["class"].partition(":")
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    error: Exception = value(*entry["arguments"])
    return error
