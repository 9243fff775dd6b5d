"""What a run of a flow keeps, so that another process can go on with it.

There the flow is kicked off again, and the code of its methods runs again, but not its crews: one that had returned
gives what it returned, one that had failed fails in the same way, and one that was at work goes on by a journal of its
own, like a crew that is run by itself. What a person has judged of a method is in `feedback.py`.

The entries, beside those of a crew's journal below `crew:<key>/`:

    flow                   with what it began
    crew:<key>/call        which kickoff this is, what it was given, the ids of its tasks
    crew:<key>/done        what the crew returned, or `failed`: what it raised
    crew:<key>/decision    of the review that is pending there, until it is taken up
    method:<key>/id        the task that stands for this execution of a method
    method:<key>/task:<id> it has ended, and this is told of it
    pending                where the review is that the run waits for

The key of a crew is the method, its how many-th execution, the crew's own key, and a number for each kickoff.
"""

import importlib
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from . import internals
from .events import Sink
from .extractors import Refused
from .flow_crews import CrewCall, People, told_of
from .flows import MethodCall, methods_of, name_of
from .journal import PAID, Unresumable
from .outputs import Entries, survives
from .reviews import Line
from .stops import Control
from .tasks import TaskBook
from .wire import plain, text

NEVER = "the run cannot go on: "


class FlowJournal:
    """The entries of one run: those of its earlier processes, and those that this one adds."""

    def __init__(
        self, flow: Any, entries: Entries, control: Control, book: TaskBook, decision: "Entries | None"
    ) -> None:
        self.flow = flow
        self.entries = dict(entries)
        self.answered = False
        self.book = book
        self.control = control
        self.obstacles = [
            "CrewAI " + internals.version() + " has no " + name for name in internals.missing(internals.FLOWS)
        ]
        # What no other process could go on with. While there is any, people are waited for in this one.
        self.stuck: set[str] = set()
        self._decision = decision
        # Of a run that begins anew.
        self._dropped: list[str] = []
        self._used_before: Entries = entries.get("usage") or {}
        self._crews: list[CrewCall] = []
        self._claimed: set[str] = set()
        self._methods: list[MethodCall] = []
        self._places = 1 + max(
            (value["place"] for name, value in entries.items() if name.endswith(("/call", "/id"))), default=-1
        )
        self._sink: Sink | None = None
        self._send: Callable[[Line], None] | None = None
        self._lock = threading.RLock()
        # Of people who are asked in this process, each is heard before the next is asked.
        self._asking = threading.Lock()
        self._tell: Callable[[Line], None] | None = None

    @property
    def sink(self) -> Sink:
        assert self._sink is not None
        return self._sink

    def done(self) -> "list[Line]":
        """What an earlier process told of the tasks that it finished, in the order in which they became known."""
        told = {
            value["told"]["task_id"]: value["told"]
            for name, value in self.entries.items()
            if name.partition("/")[2].startswith("task:")
        }
        return [told[task_id] for task_id, _ in self._ids() if task_id in told]

    # Going on

    def check(self) -> None:
        """Raise Unresumable if what was journalled is not for this flow in this environment."""
        try:
            self._check()
        except Unresumable:
            if self.done() or "pending" in self.entries:
                raise
            # Nothing is lost if it begins anew.
            self._dropped = [name for name in self.entries if name not in ("spent", "usage")]
            self._note(dict.fromkeys(self._dropped))

    def _check(self) -> None:
        run = self.entries.get("flow")
        if run is None:
            return
        if self.obstacles:
            raise Unresumable(NEVER + "; ".join(self.obstacles))
        if run["crewai"] != internals.version():
            raise Unresumable(
                NEVER
                + "it began with CrewAI "
                + run["crewai"]
                + ", and this is CrewAI "
                + internals.version()
            )
        now = self._identity()
        if run["flow"] != now["flow"]:
            raise Unresumable(
                NEVER + "it began with the flow " + run["flow"] + ", and this is the flow " + now["flow"]
            )
        if run["methods"] != now["methods"]:
            raise Unresumable(
                NEVER + "the flow had the methods " + ", ".join(run["methods"]) + ", and now has "
                + ", ".join(now["methods"])
            )  # fmt: skip
        if "problem" in run:
            raise Unresumable(NEVER + run["problem"])

    def restore(self) -> "dict[str, Any] | None":
        """Give the book what earlier processes knew; inputs to begin with, if they are not those of the kickoff."""
        for task_id, of_crew in self._ids():
            self.book.reserve([task_id], crew=of_crew)
        self.book.restore(self.done())
        run = self.entries.get("flow")
        if run is None:
            return None
        if hasattr(self.flow, "_stamp_state_id"):
            self.flow._stamp_state_id(run["state_id"])  # noqa: SLF001
        if "state" in run:
            # What the flow has persisted since is of the processes that were cut.
            self.flow._skip_persistence_restore = True  # noqa: SLF001
            state: dict[str, Any] = run["state"]
            return state
        return None

    def _ids(self) -> "list[tuple[str, bool]]":
        """The ids of all tasks that were known, in that order, and whether each is a crew's."""
        found = [
            (value["place"], [(task_id, True) for task_id in value["tasks"]])
            if name.endswith("/call")
            else (value["place"], [(value["id"], False)])
            for name, value in self.entries.items()
            if name.endswith(("/call", "/id"))
        ]
        return [each for _, ids in sorted(found) for each in ids]

    def _identity(self) -> Entries:
        return {"flow": name_of(self.flow), "methods": sorted(methods_of(self.flow))}

    # What is kept

    def attach(self, sink: Sink, send: Callable[[Line], None], tell: Callable[[Line], None]) -> Any:
        """From now on, what is known goes to the server by `send`, a person is asked in this process by `tell`, and the
        flow's crews are kicked off through this; the variable that says whom CrewAI asks, for threads.
        """
        self._sink, self._send, self._tell = sink, send, tell
        if self._dropped:
            self.keep(dict.fromkeys(self._dropped))
        pending = self.entries.get("pending")
        if pending is not None and self._decision is not None:
            # It is the flow that comes to where it is for, another pause may be before it.
            self.keep({pending["where"] + "/decision": self._decision, "pending": None})
        if not self.obstacles:
            self._replace_kickoffs()
            hooks = importlib.import_module("crewai.hooks")
            hooks.register_hook(hooks.InterceptionPoint.PRE_STEP, self._comment)
        module = importlib.import_module("crewai.core.providers.human_input")
        if self.answered:
            module.set_provider(People(self))
        return module._provider  # noqa: SLF001

    def keep(self, entries: Entries) -> None:
        """Tell the server, and know it."""
        with self._lock:
            self._note(entries)
            assert self._send is not None
            self._send({"op": "journal", "journal": entries})

    def _note(self, entries: Entries) -> None:
        for name, value in entries.items():
            if value is None:
                self.entries.pop(name, None)
            else:
                self.entries[name] = value

    def asks(self, crew: Any) -> bool:
        return self.answered and self.crew(crew) is not None

    def gave_ids(self, crew: Any) -> bool:
        return self.crew(crew) is not None

    def begun(self, crew: Any, event: Any) -> None:
        call = self.crew(crew)
        if call is not None:
            call.journal.begun(crew, event)

    def resumes(self, task_id: str) -> bool:
        return any(call.journal.resumes(task_id) for call in self._crews)

    def method_began(self, call: MethodCall) -> None:
        with self._lock:
            self._methods = [each for each in self._methods if self.sink.methods.is_open(each)] + [call]
            known = self.entries.get(method_key(call) + "/id")
            if known is not None:
                call.reserved = known["id"]
                call.told = method_key(call) + "/task:" + known["id"] in self.entries

    def beside(self, kind: str, source: Any, fields: Entries) -> "Entries | None":
        """Raises nothing but MemoryError: the line itself must go out."""
        try:
            with self._lock:
                entries = self._beside(kind, source, fields)
                self._note(entries)
                return entries or None
        except MemoryError:
            raise
        except Exception:
            sys.stderr.write("crewcast: what the flow has done could not be journalled\n")
            traceback.print_exc()
            return None

    def _beside(self, kind: str, source: Any, fields: Entries) -> Entries:
        entries: Entries = {}
        call = self.crew_of(source) if kind in ("task_started", "task_completed") else None
        if call is not None:
            entries.update(call.named(call.beside(kind, source, fields)))
        elif self.control.limits and kind in PAID:
            entries["spent"] = dict(self.control.spent)
        if kind == "method_execution_started" and "flow" not in self.entries:
            entries["flow"] = self._began()
        task_id = fields.get("task_id")
        method = next((each for each in self._methods if task_id and each.claimed() == task_id), None)
        if method is not None:
            entries.update(self.known(method))
            if kind in ("task_completed", "task_failed"):
                self._methods.remove(method)
            if kind == "task_completed":
                told = told_of(fields)
                entries[method_key(method) + "/task:" + told["task_id"]] = {"told": told}
                entries["usage"] = self.usage()
                entries["spent"] = dict(self.control.spent)
        return entries

    def known(self, method: MethodCall) -> Entries:
        """Which task stands for this execution, unless that is known already."""
        name = method_key(method) + "/id"
        if name in self.entries:
            return {}
        return {name: {"id": method.task_id(), "place": self.place()}}

    def place(self) -> int:
        with self._lock:
            self._places += 1
            return self._places - 1

    def _began(self) -> Entries:
        run = {
            "crewai": internals.version(),
            **self._identity(),
            "state_id": text(getattr(self.flow, "flow_id", "")),
        }
        if getattr(self.flow, "persistence", None) is not None:
            # Where the inputs have an id, the flow has begun with what was persisted under that.
            state = self.flow._copy_and_serialize_state()  # noqa: SLF001
            if survives(state):
                run["state"] = state
            else:
                run["problem"] = "the state that it began with is no JSON"
                self.stuck.add("flow")
        return run

    def usage(self) -> "Entries | None":
        """What the run has used of its LLMs, over all processes."""
        used = getattr(self.flow, "usage_metrics", None)
        if used is None:
            return None
        now: Entries = plain(used)
        before = self._used_before
        return {
            name: value + before.get(name, 0) if isinstance(value, int) else value
            for name, value in now.items()
        }

    # The flow's crews

    def crew(self, crew: Any) -> "CrewCall | None":
        """The kickoff of this crew that is under way."""
        with self._lock:
            return next((call for call in reversed(self._crews) if call.journal.crew is crew), None)

    def crew_of(self, task: Any) -> "CrewCall | None":
        """The kickoff that this task belongs to."""
        with self._lock:
            return next((call for call in reversed(self._crews) if id(task) in call.journal.id_of), None)

    def _comment(self, step: Any) -> None:
        call = self.crew_of(step.task) if step.kind == "task" else None
        if call is not None:
            call.journal._comment(step)  # noqa: SLF001

    def _passes(self, crew: Any, named: Entries) -> bool:
        """Whether this kickoff is none of ours: it is a tool's, or only begins a stream and comes again."""
        return crew.stream or self.sink.nested() or named.get("from_checkpoint") is not None

    def _replace_kickoffs(self) -> None:
        crew_class = importlib.import_module("crewai").Crew
        kickoff, akickoff = crew_class.kickoff, crew_class.akickoff

        def kickoff_or_answer(crew: Any, inputs: Any = None, *args: Any, **named: Any) -> Any:
            if self._passes(crew, named):
                return kickoff(crew, inputs, *args, **named)
            call = self._begin(crew, inputs)
            if call.is_over():
                return call.answer()
            with call.at_work() as output:
                output.append(kickoff(crew, call.inputs, *args, **named))
            return output[0]

        async def akickoff_or_answer(crew: Any, inputs: Any = None, *args: Any, **named: Any) -> Any:
            if self._passes(crew, named):
                return await akickoff(crew, inputs, *args, **named)
            call = self._begin(crew, inputs)
            if call.is_over():
                return call.answer()
            with call.at_work() as output:
                output.append(await akickoff(crew, call.inputs, *args, **named))
            return output[0]

        crew_class.kickoff, crew_class.akickoff = kickoff_or_answer, akickoff_or_answer

    def _begin(self, crew: Any, inputs: Any) -> "CrewCall":
        """Which kickoff this is, in this process and in those before."""
        method = self.sink.methods.current()
        if method is not None:
            method.ran_crew = True
        with self._lock:
            self.control.check()
            key = self._claim(crew, method, plain(inputs))
            call = CrewCall(self, key, crew, inputs, method)
            if not call.is_over():
                self._crews.append(call)
        return call

    def _claim(self, crew: Any, method: "MethodCall | None", given: Any) -> str:
        """The key of a kickoff that earlier processes know and this one has not come to yet; or a new one, kept.

        It is one with the same inputs. Where there is none, it is the next: inputs may hold the time of day. But where
        several were at work at once, nobody knows which is the next, and the crew is run anew.
        """
        base = crew_base(crew, method)
        known = {
            name: value
            for name, value in self.entries.items()
            if name.startswith(base) and name.endswith("/call") and name not in self._claimed
        }
        order = sorted(known, key=lambda name: known[name]["number"])
        equal = [name for name in order if known[name]["given"] == given]
        if not equal and not any(known[name]["beside"] for name in order):
            equal = order
        if equal:
            self._claimed.add(equal[0])
            return equal[0].removesuffix("/call")
        numbers = [
            value["number"]
            for name, value in self.entries.items()
            if name.startswith(base) and name.endswith("/call")
        ]
        number = max(numbers, default=0) + 1
        key = base + str(number)
        others = [call.key + "/call" for call in self._crews if call.key.startswith(base)]
        entries = {name: {**self.entries[name], "beside": True} for name in others}
        entries[key + "/call"] = {
            "place": self.place(),
            "number": number,
            "given": given,
            "beside": bool(others),
            "tasks": self.book.add(crew.tasks),
        }
        self._claimed.add(key + "/call")
        self.keep(entries)
        return key

    def end(self, call: "CrewCall") -> None:
        with self._lock:
            self._crews.remove(call)
            self.stuck.discard(call.key)

    # Asking a person

    def is_held(self, where: str) -> bool:
        """Whether something else than what asks here, or something of its own crew, needs this very process."""
        with self._lock:
            return bool(self.stuck - {where}) or any(
                call.has_problem() or (call.key != where and call.journal.obstacles) for call in self._crews
            )

    def check_path(self, where: str) -> None:
        """A crew that was decided on, and that the same method has not come to again, has become this one."""
        size = len(self.entries[where + "/call"]["tasks"])
        for name, value in self.entries.items():
            lost = name.removesuffix("/decision") + "/call"
            if (
                name.endswith("/decision")
                and value is not None
                and lost in self.entries
                and lost not in self._claimed
                and lost.split("|")[:2] == where.split("|")[:2]
                and len(self.entries[lost]["tasks"]) == size
            ):
                raise self.refuse(
                    "the method " + lost.split("|")[0].removeprefix("crew:") + " did not come again to the crew that "
                    "waited for a person: the words of its tasks are other ones in each process"
                )  # fmt: skip

    def unused(self) -> list[str]:
        """Where something was decided that the flow has not come to again."""
        return [name.rpartition("/")[0] for name in self.entries if name.endswith("/decision")]

    def refuse(self, why: str) -> Refused:
        """The run's word is said now, whatever the project makes of what is raised."""
        refused = Refused(why if why.startswith(NEVER) else NEVER + why)
        self.sink.end(refused)
        return refused

    def tell(self, line: Line) -> None:
        """Ask a person for whom this process waits."""
        assert self._tell is not None
        self._tell(line)

    def wait(self, line: Line) -> Entries:
        """Ask a person and wait for the decision, in this process. Raises Refused if the run is stopped meanwhile."""
        with self._asking:
            self.tell({**line, "in_place": True, "journal": {}})
            try:
                return self.control.decision()
            except Refused as stopped:
                self.sink.end(stopped)
                raise

    def paused(self, where: str, line: Line, entries: Entries) -> Line:
        """The line with which a process ends that asks a person here."""
        bus = importlib.import_module("crewai.events.event_bus").crewai_event_bus
        # What CrewAI counts, it counts in threads of its own.
        bus.flush(5.0)
        line["journal"] = {
            **entries,
            where + "/decision": None,
            "pending": {"where": where},
            "usage": self.usage(),
            "spent": dict(self.control.spent),
        }
        return line


def method_key(call: MethodCall) -> str:
    return "method:" + _safe(call.name) + "|" + str(call.number)


def crew_base(crew: Any, method: "MethodCall | None") -> str:
    where = "|" if method is None else _safe(method.name) + "|" + str(method.number)
    return "crew:" + where + "|" + text(crew.key) + "|"


def _safe(name: str) -> str:
    """What follows the first slash is what is kept there."""
    return name.replace("%", "%25").replace("/", "%2f").replace("|", "%7c")
