"""A person looks at what a task has made, and approves it or says what is wrong with it.

CrewAI asks its human input provider. This one ends the process with all that another needs to go on: there the task is
run again, but its executor is given the conversation and the answer it had, so it asks no model and no tool a second
time, and comes to the person's decision by CrewAI's own way. Where that cannot be, the process waits for the decision.
"""

import importlib
from collections.abc import Callable
from typing import Any

from . import internals
from .events import Sink
from .extractors import Refused
from .journal import Entries, Journal, obstacles
from .packing import survives
from .stops import Control
from .tasks import TaskBook, stable_ids
from .wire import as_text, text

Line = dict[str, Any]


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
        journal: Journal,
        book: TaskBook,
        decision: "Entries | None",
        sink: Sink,
        control: Control,
        tell: Callable[[Line], None],
    ) -> None:
        self._journal = journal
        self._book = book
        self._decision = decision
        # Not yet taken up again.
        self._waiting = journal.pending
        self._live: Any = None
        self._sink = sink
        self._control = control
        self._tell = tell

    def install(self) -> Any:
        """CrewAI asks this one from now on; the variable that says so, for threads."""
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
        if pending is None or self._journal.id_of.get(id(task)) != pending["task"]:
            return False
        # Once: when a guardrail has the agent try again, that goes to its model.
        self._waiting, self._live = None, context
        context.state.messages.extend(pending["messages"])
        context.state.current_answer = load_answer(pending["answer"], task)
        context.state.is_finished = True
        # Or it would plan again.
        context._is_feedback_iteration = True  # noqa: SLF001
        failures = importlib.import_module("crewai.tools.tool_failure")
        active = failures.active_tool_failures()
        if active is not None:
            active.extend(
                failures.ToolFailureRecord.model_validate(each) for each in pending["tool_failures"]
            )
        if hasattr(context.agent, "tools_results"):
            context.agent.tools_results = list(pending["tools_results"])
        for tool in context.tools or []:
            for each in _counting(tool):
                each.current_usage_count = pending["tool_use"].get(tool.name, 0)
        task.retry_count = pending["retry_count"]
        counts = {int(index): count for index, count in pending["guardrail_counts"].items()}
        task._guardrail_retry_counts = counts  # noqa: SLF001
        task.guardrail_max_retries -= _used(task)
        return True

    def post_setup_messages(self, context: Any) -> None:
        pass

    def handle_feedback(self, formatted_answer: Any, context: Any) -> Any:
        answer = formatted_answer
        while (feedback := self._feedback(answer, context)) is not None:
            context.messages.append(context._format_feedback_message(feedback))  # noqa: SLF001
            answer = context._invoke_loop()  # noqa: SLF001
        return answer

    async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
        answer = formatted_answer
        while (feedback := self._feedback(answer, context)) is not None:
            context.messages.append(context._format_feedback_message(feedback))  # noqa: SLF001
            answer = await context._ainvoke_loop()  # noqa: SLF001
        return answer

    # What it does

    def _feedback(self, answer: Any, context: Any) -> "str | None":
        """What the person says is wrong; None if the answer is approved. Raises Paused if nobody has said anything yet."""
        if self._live is context and self._decision is not None:
            decision, self._live, self._decision = self._decision, None, None
            context._is_feedback_iteration = False  # noqa: SLF001
        else:
            decision = self._ask(answer, context)
        task_id = self._journal.id_of[id(context.task)]
        words = text(decision.get("feedback") or "").strip()
        if not decision["approve"]:
            return words
        context.ask_for_human_input = False
        self._journal.comment(task_id, words if decision.get("pass_feedback", True) else "")
        return None

    def _ask(self, answer: Any, context: Any) -> Entries:
        """Leave the process, or wait in it for the decision."""
        task = context.task
        task_id = self._journal.id_of.get(id(task))
        if task_id is None:
            raise self._end(Refused("human_input=True is supported for the tasks of the crew itself"))
        line: Line = {
            "op": "paused",
            "task_id": task_id,
            "index": self._journal.ids.index(task_id) + 1,
            "uuid": text(task.id),
            "agent": text(getattr(context.agent, "role", "")).strip(),
            "output": as_text(answer.output),
        }
        pending = self._pending(task_id, answer, context, line)
        if pending is None:
            self._tell({**line, "in_place": True, "journal": {}})
            try:
                return self._control.decision()
            except Refused as stopped:
                self._sink.end(stopped)
                raise
        line["uuid"] = pending["uuid"]
        line["journal"] = {
            "pending": pending,
            **self._journal.position(line["index"] - 1),
            **self._journal.next,
        }
        raise self._end(Paused(line))

    def _pending(self, task_id: str, answer: Any, context: Any, line: Line) -> "Entries | None":
        """All that another process needs to go on from here; None if that is not all JSON, or would not be understood."""
        task, journal = context.task, self._journal
        run = journal.run
        if journal.obstacles or obstacle(task, context.agent) or run is None or "problem" in run:
            return None
        failures = importlib.import_module("crewai.tools.tool_failure").active_tool_failures() or []
        earlier = journal.pending
        try:
            pending = {
                "task": task_id,
                "uuid": earlier["uuid"] if earlier and earlier["task"] == task_id else line["uuid"],
                "seconds": self._book.seconds(task_id),
                "answer": dump_answer(answer),
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


def dump_answer(answer: Any) -> Entries:
    """All three parts: a memory stores the text, the result is the output."""
    is_model = hasattr(answer.output, "model_dump")
    output = answer.output.model_dump(mode="json") if is_model else answer.output
    return {"thought": answer.thought, "text": answer.text, "is_model": is_model, "output": output}


def load_answer(dumped: Entries, task: Any) -> Any:
    finish = importlib.import_module("crewai.agents.parser").AgentFinish
    output = dumped["output"]
    if dumped["is_model"]:
        output = (task.response_model or task.output_pydantic or task.output_json).model_validate(output)
    return finish(thought=dumped["thought"], output=output, text=dumped["text"])


def _counting(tool: Any) -> list[Any]:
    """The objects that count how often the task has used this tool: a ReAct step asks one, a native call the other."""
    original = getattr(tool, "_original_tool", None)
    return [tool] if original is None else [tool, original]


def _used(task: Any) -> int:
    """How many of the retries of the guardrail that is at work are used up."""
    counts = task._guardrail_retry_counts  # noqa: SLF001
    return int(task.retry_count or (counts[max(counts)] if counts else 0))
