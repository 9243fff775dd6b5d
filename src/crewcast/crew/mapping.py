"""What CrewAI reported, in the words of the webhook document. Pure: a raw event in, drafts out.

A raw event is what `crew/child/events.py` sends: `type` is CrewAI's name, `at` microseconds UTC.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from crewcast.contract import webhooks
from crewcast.contract.webhooks import JSON, Draft

# CrewAI's ReAct prompt makes the model write these; what stands before the first is the thought.
_AFTER_THOUGHT = re.compile(r"(?:^|\n)\s*(?:Action|Final Answer)\s*:", re.IGNORECASE)
_THOUGHT_LABEL = re.compile(r"^\s*Thought\s*:\s*", re.IGNORECASE)


@dataclass(slots=True)
class Mapping:
    """Maps the raw events of one run in their order; knows which tasks have had a step, and what agents said last."""

    kickoff_id: str
    meta: JSON | None = None
    _stepped: set[str] = field(default_factory=set)
    _said: dict[tuple[str | None, str | None], str] = field(default_factory=dict)

    def drafts(self, raw: JSON) -> list[Draft]:
        """The webhook events that a raw event stands for: none, one or more."""
        drafts = self._drafts(raw)
        for draft in drafts:
            if draft.type == "step" and draft.task_id is not None:
                self._stepped.add(draft.task_id)
        return drafts

    def paused(self, raw: JSON) -> list[Draft]:
        """What is told of a task before it waits for a person: the agent's answer as a thought, if it had no step."""
        if raw["task_id"] in self._stepped or not raw.get("agent"):
            return []
        self.stepped(raw["task_id"])
        return [self._step(raw, "thought", content=raw["output"])]

    def stepped(self, task_id: str) -> None:
        """Steps of this task were told, perhaps by another process."""
        self._stepped.add(task_id)

    def _drafts(self, raw: JSON) -> list[Draft]:
        match raw["type"]:
            case "llm_call_completed":
                return self._thought(raw)
            case "agent_reasoning_completed":
                return self._plan(raw)
            case "tool_usage_started":
                return self._tool_started(raw)
            case "tool_usage_finished" | "tool_usage_error":
                return self._tool_ended(raw)
            case (
                "tool_validate_input_error"
                | "tool_selection_error"
                | "tool_failure_detected"
                | "agent_logs_execution"
            ):
                # A call that never started: told as a call and its result, so that each has the other.
                return [*self._tool_started(raw), *self._tool_ended(raw)]
            case "task_completed":
                return self._task_completed(raw)
            case "task_failed":
                return self._task_failed(raw)
            case _:
                return []

    def _step(self, raw: JSON, kind: str, **fields: Any) -> Draft:
        return webhooks.step(
            self.kickoff_id, raw.get("task_id"), kind, raw["at"], agent=raw.get("agent"), **fields
        )

    def _thought(self, raw: JSON) -> list[Draft]:
        text = raw.get("response")
        if not isinstance(text, str) or raw.get("call_type") == "tool_call":
            return []
        thought = self._said[_speaker(raw)] = thought_of(text)
        return [self._step(raw, "thought", content=thought)] if thought else []

    def _plan(self, raw: JSON) -> list[Draft]:
        plan = raw.get("plan")
        if not plan or _unlabelled(plan) == self._said.get(_speaker(raw)):
            # A model that wrote the plan as plain text has been heard.
            return []
        return [self._step(raw, "thought", content=plan)]

    def _tool_started(self, raw: JSON) -> list[Draft]:
        tool, arguments = raw.get("tool", ""), tool_input(raw.get("args"))
        call = self._step(raw, "tool_call", tool=tool, input=arguments)
        if raw.get("mode") != "react":
            return [call]
        # The ReAct loop acts and observes in words; the call and its result are told beside them.
        return [self._step(raw, "action", tool=tool, input=arguments, content=f"Use {tool}"), call]

    def _tool_ended(self, raw: JSON) -> list[Draft]:
        tool = raw.get("tool", "")
        output = raw["error"] if "error" in raw else raw.get("output", "")
        result = self._step(raw, "tool_result", tool=tool, input=tool_input(raw.get("args")), output=output)
        if raw.get("mode") != "react":
            return [result]
        return [result, self._step(raw, "observation", content=output)]

    def _task_completed(self, raw: JSON) -> list[Draft]:
        drafts = []
        if raw["task_id"] not in self._stepped and "method" not in raw:
            # An LLM class of the project's own may report no calls: the answer is its one thought.
            # (A flow's method may be plain code, which thinks nothing.)
            drafts.append(self._step(raw, "thought", content=raw.get("output", "")))
        return [*drafts, self._task(raw, "completed", raw.get("output"))]

    def _task_failed(self, raw: JSON) -> list[Draft]:
        drafts = []
        if raw["task_id"] not in self._stepped and "method" not in raw:
            drafts.append(self._step(raw, "thought", content=f"The task failed: {raw.get('error', '')}"))
        return [*drafts, self._task(raw, "error", raw.get("error"))]

    def _task(self, raw: JSON, status: str, output: str | None) -> Draft:
        self._said = {speaker: text for speaker, text in self._said.items() if speaker[0] != raw["task_id"]}
        return webhooks.task_completed(
            self.kickoff_id,
            raw["task_id"],
            status,
            raw["at"],
            agent=raw.get("agent"),
            output=output,
            execution_time=raw.get("execution_time"),
            meta=self.meta,
        )


def _speaker(raw: JSON) -> tuple[str | None, str | None]:
    return raw.get("task_id"), raw.get("agent")


def thought_of(response: str) -> str:
    """What the model thought: its text without ReAct's labels, up to its action or final answer.

    A text that has only a final answer is the thought itself: an agent without tools says no more.
    """
    marker = _AFTER_THOUGHT.search(response)
    thought = _unlabelled(response[: marker.start()] if marker else response)
    if thought or marker is None:
        return thought
    label = marker.group().strip().lower()
    return response[marker.end() :].strip() if label.startswith("final") else ""


def _unlabelled(text: str) -> str:
    return _THOUGHT_LABEL.sub("", text).strip()


def tool_input(arguments: Any) -> JSON:
    """A tool's arguments as an object: JSON objects as they are, anything else as `{"input": ...}`."""
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = arguments
        arguments = parsed
    if isinstance(arguments, dict):
        return arguments
    return {} if arguments is None else {"input": arguments}
