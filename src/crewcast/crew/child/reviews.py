"""A person looks at what a task has made, and approves it or says what is wrong with it.

CrewAI asks its human input provider. This one ends the process with all that another needs to go on: there the task is
run again, but its executor is given the conversation and the answer it had, so it asks no model and no tool a second
time, and comes to the person's decision by CrewAI's own way. Where that cannot be, the process waits for the decision.
"""

import asyncio
import importlib
import threading
from collections.abc import Callable
from typing import Any

from . import internals
from .events import Sink
from .extractors import Refused
from .journal import FlowJournals, Journal, obstacles
from .outputs import Entries, survives
from .stops import Control
from .tasks import TaskBook, stable_ids
from .wire import as_text, text

Line = dict[str, Any]

# At a terminal, their agent begins anew and is told nothing.
CANNOT_SEND_BACK = (
    "agents of this release of CrewAI cannot go on with an answer that was rejected; those of newer ones can"
)


class Paused(Refused):
    """Leaves the crew where it asks a person. `line` is the last that this process says."""

    kind = "paused"

    def __init__(self, line: Line) -> None:
        super().__init__("awaiting human feedback")
        self.line = line


def reviewed(crew: Any) -> list[Any]:
    return [task for task in crew.tasks if getattr(task, "human_input", False)]


def obstacle(task: Any, manager: Any = None) -> str:
    """Why this task's review cannot be decided in another process, if so."""
    gone = internals.missing(internals.REVIEWING)
    if gone:
        return "CrewAI " + internals.version() + " has no " + ", ".join(gone)
    agent = manager or getattr(task, "agent", None)
    own = importlib.import_module("crewai.agents.agent_executor").AgentExecutor
    if getattr(agent, "executor_class", own) is not own:
        return "its agent has an executor_class of its own"
    if getattr(task, "input_files", None):
        return "it has files"
    return ""


def warnings(crew: Any) -> list[str]:
    """What is other than at a terminal."""
    said = []
    manager = getattr(crew, "manager_agent", None)
    ids = {id(task): task_id for task_id, task in zip(stable_ids(crew.tasks), crew.tasks, strict=True)}
    for task in reviewed(crew):
        if task.async_execution:
            said.append(
                "the task " + ids[id(task)] + " has async_execution and human_input: it is run by itself, after all "
                "tasks before it, whose outputs it sees"
            )  # fmt: skip
        why = "; ".join(filter(None, [*obstacles(crew), obstacle(task, manager)]))
        executor = getattr(manager or task.agent, "executor_class", None)
        if executor is not None and not hasattr(executor, "_invoke_loop"):
            said.append("the task " + ids[id(task)] + " can be approved only: " + CANNOT_SEND_BACK)
        if why:
            said.append(
                "the task " + ids[id(task)] + " holds a process while it waits for a person, and the wait does not "
                "outlive that: " + why
            )  # fmt: skip
    return said


class Reviews:
    """The human input provider of a run."""

    def __init__(
        self,
        journal: Journal | FlowJournals,
        book: TaskBook,
        decision: Entries | None,
        sink: Sink,
        control: Control,
        tell: Callable[[Line], None],
    ) -> None:
        self._journal = journal
        self._book = book
        self._decision = decision
        # Not yet taken up again.
        self._waiting = journal.pending if isinstance(journal, Journal) else None
        self._live: Any = None
        # Of people who are asked while others do something beside it, each is heard before the next is asked.
        self._asking = threading.Lock()
        self._sink = sink
        self._control = control
        self._tell = tell

    def install(self) -> Any:
        """CrewAI asks this one from now on; the variable that says so, for threads."""
        if isinstance(self._journal, Journal):
            for task in reviewed(self._journal.crew):
                # Beside others it could not wait: it would leave them behind.
                task.async_execution = False
        module = importlib.import_module("crewai.core.providers.human_input")
        module.set_provider(self)
        return module._provider  # noqa: SLF001

    # What CrewAI calls

    def setup_messages(self, context: Any) -> bool:
        """Called as each run of an agent begins: the one that waited is where it was, others begin as usual."""
        pending, task = self._waiting, context.task
        journal = self._journal.of(task)
        if pending is None or journal is None or journal.id_of[id(task)] != pending["task"]:
            return False
        # Once: when a guardrail has the agent try again, that goes to its model.
        self._waiting, self._live = None, context
        try:
            _take_up(pending, context)
        except Exception as error:
            # The agent would begin anew.
            raise self._end(Refused("the run cannot go on: " + text(error))) from error
        return True

    def post_setup_messages(self, context: Any) -> None:
        pass

    def handle_feedback(self, formatted_answer: Any, context: Any) -> Any:
        answer = formatted_answer
        while True:
            decision = self._at_hand(context)
            if decision is None:
                decision = self._wait(self._ask(answer, context))
            feedback = self._take(decision, context)
            if feedback is None:
                return answer
            context.messages.append(context._format_feedback_message(feedback))  # noqa: SLF001
            answer = context._invoke_loop()  # noqa: SLF001

    async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
        answer = formatted_answer
        while True:
            decision = self._at_hand(context)
            if decision is None:
                decision = await asyncio.to_thread(self._wait, self._ask(answer, context))
            feedback = self._take(decision, context)
            if feedback is None:
                return answer
            context.messages.append(context._format_feedback_message(feedback))  # noqa: SLF001
            answer = await context._ainvoke_loop()  # noqa: SLF001

    # What it does

    def _at_hand(self, context: Any) -> Entries | None:
        """The decision that this process was started with, if it is for this task."""
        if self._live is not context or self._decision is None:
            return None
        decision, self._live, self._decision = self._decision, None, None
        context._is_feedback_iteration = False  # noqa: SLF001
        return decision

    def _take(self, decision: Entries, context: Any) -> str | None:
        """What the person says is wrong; None if the answer is approved."""
        words = text(decision.get("feedback") or "").strip()
        if not decision["approve"]:
            if not hasattr(context, "_invoke_loop"):
                raise self._end(Refused(CANNOT_SEND_BACK))
            return words
        context.ask_for_human_input = False
        journal = self._journal.of(context.task)
        assert journal is not None
        journal.comment(journal.id_of[id(context.task)], words if decision.get("pass_feedback", True) else "")
        return None

    def _wait(self, line: Line) -> Entries:
        """Ask in this process, and wait for the answer."""
        with self._asking:
            self._tell({**line, "in_place": True, "journal": {}})
            try:
                return self._control.decision()
            except Refused as stopped:
                self._sink.end(stopped)
                raise

    def _ask(self, answer: Any, context: Any) -> Line:
        """Raise Paused; or, where no other process could go on, the line that asks."""
        task = context.task
        journal, task_id = self._journal.of(task), self._book.known(task.id)
        if journal is None or task_id is None:
            raise self._end(Refused("human_input=True is supported for the tasks of the run itself"))
        order = [told["task_id"] for told in self._book.overview()]
        line: Line = {
            "op": "paused",
            "task_id": task_id,
            "index": order.index(task_id) + 1,
            "uuid": text(task.id),
            "agent": text(getattr(context.agent, "role", "")).strip(),
            "output": as_text(answer.output),
        }
        pending = self._pending(journal, answer, context, line)
        if pending is None:
            return line
        line["uuid"] = pending["uuid"]
        line["journal"] = {
            "pending": pending,
            **journal.position(line["index"] - 1),
            **journal.next,
        }
        raise self._end(Paused(line))

    def _pending(self, journal: Journal, answer: Any, context: Any, line: Line) -> Entries | None:
        """All that another process needs to go on from here; None if that is not all JSON, or would not be understood."""
        task, task_id, run = context.task, line["task_id"], journal.run
        if journal.obstacles or obstacle(task, context.agent) or run is None or "problem" in run:
            return None
        failures = importlib.import_module("crewai.tools.tool_failure").active_tool_failures() or []
        earlier = journal.pending
        try:
            pending = {
                "task": task_id,
                "uuid": earlier["uuid"] if earlier and earlier["task"] == task_id else line["uuid"],
                "seconds": self._book.seconds(task_id),
                "answer": dump_answer(answer, task),
                "messages": [dict(message) for message in context.messages],
                "retry_count": task.retry_count,
                "guardrail_counts": {str(n): count for n, count in task._guardrail_retry_counts.items()},  # noqa: SLF001
                "tool_failures": [each.model_dump(mode="json") for each in failures],
                "tools_results": list(getattr(context.agent, "tools_results", None) or []),
                "tool_use": {
                    tool.name: max(each.current_usage_count for each in _counting(tool))
                    for tool in context.tools or []
                },
            }
        except Exception:
            return None
        return pending if survives(pending) else None

    def _end(self, refused: Refused) -> Refused:
        """The run's word is said now: whatever the project catches, this process is at its end."""
        self._sink.end(refused)
        return refused


def _take_up(pending: Entries, context: Any) -> None:
    """The executor as it was when it asked, and done with its work."""
    task = context.task
    context.state.messages.extend(pending["messages"])
    context.state.current_answer = load_answer(pending["answer"], task)
    context.state.is_finished = True
    # Or it would plan again.
    context._is_feedback_iteration = True  # noqa: SLF001
    failures = importlib.import_module("crewai.tools.tool_failure")
    active = failures.active_tool_failures()
    if active is not None:
        active.extend(failures.ToolFailureRecord.model_validate(each) for each in pending["tool_failures"])
    if hasattr(context.agent, "tools_results"):
        context.agent.tools_results = list(pending["tools_results"])
    for tool in context.tools or []:
        for each in _counting(tool):
            each.current_usage_count = pending["tool_use"].get(tool.name, 0)
    task.retry_count = pending["retry_count"]
    counts = {int(index): count for index, count in pending["guardrail_counts"].items()}
    task._guardrail_retry_counts = counts  # noqa: SLF001
    task.guardrail_max_retries -= _used(task)


def dump_answer(answer: Any, task: Any) -> Entries:
    """All three parts: a memory stores the text, the result is the output. Raises for a model that cannot be made again."""
    output, is_model = answer.output, hasattr(answer.output, "model_dump")
    if is_model:
        if type(output) is not _model_of(task):
            raise TypeError(type(output).__name__)
        output = output.model_dump(mode="json")
    return {"thought": answer.thought, "text": answer.text, "is_model": is_model, "output": output}


def load_answer(dumped: Entries, task: Any) -> Any:
    finish = importlib.import_module("crewai.agents.parser").AgentFinish
    output = _model_of(task).model_validate(dumped["output"]) if dumped["is_model"] else dumped["output"]
    return finish(thought=dumped["thought"], output=output, text=dumped["text"])


def _model_of(task: Any) -> Any:
    return task.response_model or task.output_pydantic or task.output_json


def _counting(tool: Any) -> list[Any]:
    """The objects that count how often the task has used this tool: a ReAct step asks one, a native call the other."""
    original = getattr(tool, "_original_tool", None)
    return [tool] if original is None else [tool, original]


def _used(task: Any) -> int:
    """How many of the retries of the guardrail that is at work are used up."""
    counts = task._guardrail_retry_counts  # noqa: SLF001
    return int(task.retry_count or (counts[max(counts)] if counts else 0))
