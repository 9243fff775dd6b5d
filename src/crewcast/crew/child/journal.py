"""What a run of a crew keeps, so that another process can go on with it: only JSON passes from one to the next."""

import importlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

from . import internals
from .errors import ProjectError
from .outputs import Entries, answer_with, dump_output, load_output, survives
from .stops import Control
from .tasks import TaskBook, stable_ids
from .wire import text

# CrewAI's own divider between what a task is told.
DIVIDER = "\n\n----------\n\n"
# Lines with which what is spent of a budget is committed.
PAID = frozenset({"llm_call_completed", "tool_usage_started"})


class Unresumable(ProjectError):
    """A run cannot go on in this process, and why."""


def obstacles(crew: Any) -> list[str]:
    """Why no run of this crew could go on in another process."""
    gone = internals.missing(internals.RESUMING)
    found = ["CrewAI " + internals.version() + " has no " + ", ".join(gone)] if gone else []
    if len({id(task) for task in crew.tasks}) < len(crew.tasks):
        found.append("the crew lists one task several times")
    return found


class Spending:
    """What every run keeps, also a flow's: how much of its budget is spent."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def asks(self, _crew: Any) -> bool:
        return False

    def begun(self, _crew: Any, _event: Any) -> None:
        pass

    def resumes(self, _task_id: str) -> bool:
        return False

    def gave_ids(self, _crew: Any) -> bool:
        return False

    def method_began(self, _call: Any) -> None:
        pass

    def beside(self, kind: str, _source: Any, _fields: Entries) -> Entries | None:
        return {"spent": dict(self._control.spent)} if self._control.limits and kind in PAID else None


class Journal(Spending):
    """The entries of one run: those of its earlier processes, and those that this one adds.

    Make it before the kickoff, which changes what tells whether the crew is still the same.
    """

    def __init__(self, crew: Any, entries: Entries, control: Control) -> None:
        super().__init__(control)
        self.crew = crew
        # Whether somebody answers what its tasks ask of people.
        self.answered = False
        self.ids = stable_ids(crew.tasks)
        self.id_of = {id(task): task_id for task_id, task in zip(self.ids, crew.tasks, strict=True)}
        self.entries = dict(entries)
        self.obstacles = obstacles(crew)
        self.comments = {
            name.partition(":")[2]: value for name, value in entries.items() if name.startswith("comment:")
        }
        # Entries that the next line takes along.
        self.next: Entries = {}
        self._keys = [text(getattr(task, "key", "")) for task in crew.tasks]
        self._send: Callable[[dict[str, Any]], None] | None = None

    @property
    def run(self) -> Entries | None:
        return self.entries.get("run")

    @property
    def pending(self) -> Entries | None:
        return self.entries.get("pending")

    def done(self) -> list[dict[str, Any]]:
        """What an earlier process told of the tasks that it finished, in the crew's order."""
        return [
            self.entries["task:" + task_id]["told"]
            for task_id in self.ids
            if "task:" + task_id in self.entries
        ]

    # Going on

    def check(self) -> None:
        """Raise Unresumable if what was journalled is not for this crew in this environment."""
        try:
            self._check()
        except Unresumable:
            if self.done() or self.pending is not None:
                raise
            # Nothing is lost if it begins anew.
            self.entries.pop("run", None)

    def _check(self) -> None:
        run = self.run
        if run is None:
            if any(name.startswith(("task:", "pending")) for name in self.entries):
                raise Unresumable("the run cannot go on: its journal does not say what it began with")
            return
        if self.obstacles:
            raise Unresumable("the run cannot go on: " + "; ".join(self.obstacles))
        if run["crewai"] != internals.version():
            raise Unresumable(
                "the run cannot go on: it began with CrewAI " + run["crewai"] + ", and this is CrewAI "
                + internals.version()
            )  # fmt: skip
        if run["tasks"] != self.ids:
            raise Unresumable(
                "the run cannot go on: the crew had the tasks " + ", ".join(run["tasks"]) + ", and now has "
                + ", ".join(self.ids)
            )  # fmt: skip
        changed = [
            task_id
            for task_id, then, now in zip(self.ids, run["keys"], self._keys, strict=True)
            if then != now
        ]
        if changed:
            raise Unresumable(
                "the run cannot go on: these tasks are described in other words than when it began: "
                + ", ".join(changed)
            )
        problems = [value["problem"] for value in self.entries.values() if _has_problem(value)]
        if problems:
            raise Unresumable("the run cannot go on: " + "; ".join(problems))

    def restore(self, book: TaskBook) -> dict[str, Any] | None:
        """Make the crew what it was after its last finished task; the inputs in force, or None if it had not begun."""
        run = self.run
        if run is None:
            return None
        crew, pending = self.crew, self.pending
        crew.checkpoint_kickoff_event_id = crew._kickoff_event_id = run["kickoff_event_id"]  # noqa: SLF001
        context = importlib.import_module("crewai.events.event_context")
        context.restore_event_scope(((run["kickoff_event_id"], "crew_kickoff_started"),))
        # The inputs are those that these callbacks made.
        crew.before_kickoff_callbacks = []
        if crew.planning and "descriptions" in run:
            vars(crew)["_handle_crew_planning"] = lambda: self._describe(run["descriptions"])
        if (
            text(getattr(crew.process, "value", crew.process)) == "hierarchical"
            and crew.manager_agent is None
        ):
            crew.manager_llm = importlib.import_module("crewai.utilities.llm_utils").create_llm(
                crew.manager_llm
            )
        self._restore_usage()
        self._restore_outputs()
        self._keep_async_contexts()
        if pending is not None:
            task = crew.tasks[self.ids.index(pending["task"])]
            if hasattr(task, "condition"):
                # It was met before the task began.
                task.condition = lambda _output: True
        book.restore(self.done(), {pending["task"]: pending["seconds"]} if pending else None)
        inputs: dict[str, Any] = run["inputs"]
        return inputs

    def _describe(self, descriptions: Entries) -> None:
        for task_id, task in zip(self.ids, self.crew.tasks, strict=True):
            task.description = descriptions[task_id]

    def _restore_usage(self) -> None:
        for llm, used in zip(llms_of(self.crew), self.entries.get("usage") or [], strict=False):
            llm._token_usage.update(used)  # noqa: SLF001

    def _restore_outputs(self) -> None:
        """CrewAI starts at the first task without an output and runs all after it; what is done there answers at once."""
        skipped, blanks, prefix = self.entries.get("skipped") or [], [], True
        for task_id, task in zip(self.ids, self.crew.tasks, strict=True):
            entry = self.entries.get("task:" + task_id)
            if entry is not None:
                output = load_output(entry["output"], task)
                if prefix:
                    task.output = output
                else:
                    answer_with(task, output)
            elif prefix and task_id in skipped:
                task.output = task.get_skipped_task_output()
                blanks.append(task)
            else:
                prefix = False
        if blanks:
            self._blank_later(blanks)

    def _blank_later(self, tasks: list[Any]) -> None:
        """A skipped task has no output when others look at it; only the search for the start must see one."""
        crew = self.crew

        def look(task: Any) -> Any:
            del vars(crew)["_get_agent_to_use"]
            for skipped in tasks:
                skipped.output = None
            return crew._get_agent_to_use(task)  # noqa: SLF001

        vars(crew)["_get_agent_to_use"] = look

    def _keep_async_contexts(self) -> None:
        """CrewAI gives an async task without a context of its own the last output, but only where tasks were skipped."""
        unspecified = importlib.import_module("crewai.utilities.constants").NOT_SPECIFIED
        # One that asks a person is no async task.
        alone = {
            id(task)
            for task in self.crew.tasks
            if task.async_execution and task.context is unspecified and not task.human_input
        }
        if alone:

            def empty(step: Any) -> None:
                if step.kind == "task" and id(step.task) in alone:
                    step.payload = ""

            _before_steps(empty)

    # What is kept

    def attach(self, send: Callable[[dict[str, Any]], None]) -> None:
        """From now on, what is known goes to the server this way."""
        self._send = send
        self.pass_comments()

    def of(self, task: Any) -> "Journal | None":
        """The journal that this task of the run's own is in."""
        return self if id(task) in self.id_of else None

    def begun(self, crew: Any, event: Any) -> None:
        if crew is not self.crew or self.obstacles or self.run is not None:
            return
        run = {
            "crewai": internals.version(),
            "inputs": event.inputs,
            "kickoff_event_id": event.event_id,
            "tasks": self.ids,
            "keys": self._keys,
        }
        if not survives(event.inputs):
            run["inputs"] = None
            run["problem"] = "its inputs, as a before_kickoff callback made them, are no JSON"
        self.entries["run"] = run
        assert self._send is not None
        self._send({"op": "journal", "journal": {"run": run}})

    def asks(self, crew: Any) -> bool:
        return self.answered and crew is self.crew

    def resumes(self, task_id: str) -> bool:
        return self.pending is not None and self.pending["task"] == task_id

    def gave_ids(self, crew: Any) -> bool:
        return crew is self.crew

    def beside(self, kind: str, source: Any, fields: Entries) -> Entries | None:
        """Raises nothing but MemoryError: the line itself must go out."""
        try:
            if kind == "task_started" and not self.obstacles:
                return self._planned()
            if kind == "task_completed" and id(source) in self.id_of and not self.obstacles:
                return self._finished(source, fields)
        except MemoryError:
            raise
        except Exception:
            sys.stderr.write("crewcast: a task could not be journalled\n")
            traceback.print_exc()
        return super().beside(kind, source, fields)

    def position(self, reached: int = -1) -> Entries:
        """What changes as a run goes on, beside its tasks; it has come at least to the task of this index."""
        crew, tasks = self.crew, list(zip(self.ids, self.crew.tasks, strict=True))
        last = max([reached, *(n for n, task in enumerate(crew.tasks) if task.output is not None)])
        skipped = [
            task_id
            for n, (task_id, task) in enumerate(tasks)
            if hasattr(task, "condition") and task.output is None and n < last
        ]
        return {
            "usage": [dict(llm._token_usage) for llm in llms_of(crew)],  # noqa: SLF001
            "spent": dict(self._control.spent),
            **({"skipped": skipped} if skipped else {}),
        }

    def _planned(self) -> Entries | None:
        """With the first task of a crew that plans: what its tasks are to do."""
        run = self.run
        if run is None or not self.crew.planning or "descriptions" in run:
            return None
        run["descriptions"] = {
            task_id: task.description for task_id, task in zip(self.ids, self.crew.tasks, strict=True)
        }
        return {"run": run}

    def _finished(self, task: Any, fields: Entries) -> Entries:
        task_id = fields["task_id"]
        told = {
            name: fields[name]
            for name in ("task_id", "agent", "output", "execution_time")
            if fields.get(name) is not None
        }
        entry = {"told": told, "output": dump_output(task.output)}
        if not survives(entry["output"]):
            entry = {"told": told, "problem": "what the task " + task_id + " returned is no JSON"}
        entries = {"task:" + task_id: entry, **self.position(), **self.next}
        self.next = {}
        pending = self.pending
        if pending is not None and pending["task"] == task_id:
            entries["pending"] = None
            del self.entries["pending"]
        self.entries.update({name: value for name, value in entries.items() if value is not None})
        return entries

    # Comments

    def pass_comments(self) -> None:
        """From now on, the tasks of this crew are told what people said of those whose output they see."""
        if not internals.missing(internals.HOOKS):
            _before_steps(self._comment)

    def comment(self, task_id: str, words: str) -> None:
        """What a person said with the approval, for the tasks that see this one's output. "" for nothing."""
        name = "comment:" + task_id
        self.comments.pop(task_id, None)
        if words:
            self.comments[task_id] = {"text": words}
            self.next[name] = self.comments[task_id]
        elif name in self.entries:
            self.next[name] = None

    def _comment(self, step: Any) -> None:
        if step.kind != "task" or id(step.task) not in self.id_of:
            return
        for task_id, task in zip(self.ids, self.crew.tasks, strict=True):
            if task_id in self.comments and self._sees(step.task, task):
                said = "Human feedback on '" + task_id + "' (approved): " + self.comments[task_id]["text"]
                step.payload = step.payload + DIVIDER + said if step.payload else said

    def _sees(self, task: Any, other: Any) -> bool:
        """Whether the task is told the other's output."""
        unspecified = importlib.import_module("crewai.utilities.constants").NOT_SPECIFIED
        if task.context is unspecified:
            order = [id(each) for each in self.crew.tasks]
            return not task.async_execution and order.index(id(other)) < order.index(id(task))
        return any(each is other for each in task.context or [])


class FlowJournals(Spending):
    """A flow begins anew when it is cut, and so do its crews; people are asked while its process waits."""

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        self.answered = False
        self._of: dict[int, Journal] = {}

    def asks(self, _crew: Any) -> bool:
        return self.answered

    def begun(self, crew: Any, _event: Any) -> None:
        asking = [task for task in crew.tasks if task.human_input]
        if not self.answered or not asking:
            return
        journal = Journal(crew, {}, self._control)
        journal.obstacles.append("it is a crew of a flow")
        journal.pass_comments()
        for task in asking:
            task.async_execution = False
            self._of[id(task)] = journal

    def of(self, task: Any) -> Journal | None:
        return self._of.get(id(task))


def llms_of(crew: Any) -> list[Any]:
    """The LLMs that CrewAI counts, each once: the agents', then the manager's."""
    manager = getattr(crew.manager_agent, "llm", None) or crew.manager_llm
    found = {id(llm): llm for llm in [*(getattr(agent, "llm", None) for agent in crew.agents), manager]}
    return [llm for llm in found.values() if hasattr(llm, "_token_usage")]


def _before_steps(hook: Callable[[Any], None]) -> None:
    hooks = importlib.import_module("crewai.hooks")
    hooks.register_hook(hooks.InterceptionPoint.PRE_STEP, hook)


def _has_problem(value: Any) -> bool:
    return isinstance(value, dict) and "problem" in value
