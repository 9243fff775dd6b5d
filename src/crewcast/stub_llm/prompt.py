"""What a request asks for, read from the prompts that CrewAI writes (and from plain chats)."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from crewcast.stub_llm import words

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool the model may call, however the prompt describes it."""

    name: str
    description: str = ""
    parameters: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Used:
    """A call that was made already, with what the tool said."""

    tool: str
    result: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request, taken apart."""

    role: str
    goal: str
    task: str
    expected: str
    context: str
    text: str
    text_tools: tuple[Tool, ...]
    used: tuple[Used, ...]
    schema: Json | None
    wants_final_answer: bool
    must_finish: bool
    must_be_ready: bool

    @property
    def results(self) -> tuple[Used, ...]:
        return tuple(used for used in self.used if used.result.strip())


_ROLE: Final = re.compile(r"You are (?:an? )?(.{2,160}?)\s*\.(?:\s|$)", re.DOTALL)
_GOAL: Final = re.compile(r"Your (?:personal )?goal(?: is)?: ([^\n]+)")
_TOOL_NAMES: Final = re.compile(r"(?:only one name of|should be one of) \[([^\]]+)\]")
_PLAN_TOOLS: Final = re.compile(r"^Available tools: ([^\n]+)$", re.MULTILINE)
_TEXT_TOOL: Final = re.compile(r"Tool Name: *([^\n]+)\n+Tool Arguments: *")
_ACTION: Final = re.compile(r"^\s*Action\s*: *(.+?) *$", re.MULTILINE)
_OBSERVATION: Final = re.compile(
    r"Observation: *(.*?)(?=\n(?:Thought|Action|Observation|Final Answer) *:|\Z)", re.DOTALL
)
_SCHEMA: Final = re.compile(r"schema\b[^{]{0,120}(?=\{)", re.IGNORECASE)

# How CrewAI's planning prompts put the task.
_SECTION: Final = re.compile(
    r"^## (?:Task|Original Task|Original task|Current Step)\n(.+?)(?=\n+## |\Z)", re.MULTILINE | re.DOTALL
)

# Where CrewAI's own words begin again after the words of the user's task.
_TASK_ENDS: Final = (
    "This is the expected criteria for your final answer:",
    "This is the context you're working with:",
    "Format your final answer according to",
    "# Memories from past conversations:",
    "Begin! This is VERY important",
    "**Execute the primary action of this step NOW.**",
    "Provide your complete response:",
    "you MUST return the actual complete content",
)
# User messages of CrewAI's that steer the loop and say nothing about the task.
_STEERING: Final = (
    "Analyze the tool result.",
    "Now it's time you MUST give",
    "Observation:",
    "You got human feedback",
)


def read(messages: Sequence[Json]) -> Prompt:
    turns = [(str(message.get("role", "user")), _content(message)) for message in messages]
    asked = [text for role, text in turns if role in {"user", "system", "developer"}]
    text = "\n".join(asked)
    source = _task_source(turns)
    section = _SECTION.search(source)
    task = section[1] if section else source.rpartition("Current Task:")[2]
    last_user = next((text for role, text in reversed(turns) if role == "user"), "")
    role, goal = _ROLE.search(text), _GOAL.search(text)
    return Prompt(
        role=words.squeeze(role[1]) if role else "",
        goal=words.squeeze(goal[1]) if goal else "",
        task=_cut(task),
        expected=_after(task, _TASK_ENDS[0]),
        context=_after(task, _TASK_ENDS[1]),
        text=text,
        text_tools=_text_tools(text),
        used=(*_native_calls(messages), *_text_calls(turns)),
        schema=schema_in(text),
        wants_final_answer="Final Answer:" in text,
        must_finish="Now it's time you MUST give" in last_user,
        must_be_ready="READY or NOT READY" in text or '"NOT READY: ' in text,
    )


def schema_in(text: str) -> Json | None:
    """The JSON schema that a prompt spells out for the answer, if it does."""
    for found in _SCHEMA.finditer(text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, found.end())
        except ValueError:
            continue
        # CrewAI writes either the schema itself or OpenAI's wrapper around it.
        if "json_schema" in value:
            value = value["json_schema"].get("schema", {})
        if isinstance(value, dict) and ("properties" in value or "$ref" in value):
            return value
    return None


def _content(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):  # multimodal messages: the text parts
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _task_source(turns: Sequence[tuple[str, str]]) -> str:
    """The last message that states the task, else the last thing the user said."""
    said = [text for role, text in turns if role == "user" and not text.lstrip().startswith(_STEERING)]
    for text in reversed([text for role, text in turns if role != "assistant"]):
        if "Current Task:" in text:
            return text
    return said[-1] if said else (turns[-1][1] if turns else "")


def _cut(text: str) -> str:
    ends = [at for mark in _TASK_ENDS if (at := text.find(mark)) > 0]
    return text[: min(ends, default=len(text))].strip()


def _after(text: str, mark: str) -> str:
    _, found, rest = text.partition(mark)
    return _cut(rest) if found else ""


def _text_tools(text: str) -> tuple[Tool, ...]:
    """The tools of CrewAI's text tool loop: their names from the format rule, the rest from their descriptions."""
    if "Action Input:" not in text:
        return ()
    described: dict[str, Tool] = {}
    for found in _TEXT_TOOL.finditer(text):
        try:
            parameters, end = json.JSONDecoder().raw_decode(text, found.end())
        except ValueError:
            continue
        description = text[end:].split("\n--\n", 1)[0].split("\n\nIMPORTANT:", 1)[0]
        name = found[1].strip()
        described[name] = Tool(name, description.replace("Tool Description:", "").strip(), parameters)
    listed = _TOOL_NAMES.search(text) or _PLAN_TOOLS.search(text)
    names = [name.strip(" '\"") for name in listed[1].split(",")] if listed else list(described)
    return tuple(described.get(name, Tool(name)) for name in names if name)


def _native_calls(messages: Sequence[Json]) -> list[Used]:
    results = {str(m.get("tool_call_id")): _content(m) for m in messages if m.get("role") == "tool"}
    return [
        Used(str(call.get("function", {}).get("name", "")), results.get(str(call.get("id")), ""))
        for message in messages
        for call in message.get("tool_calls") or ()
    ]


def _text_calls(turns: Sequence[tuple[str, str]]) -> list[Used]:
    """Calls of the text loop: CrewAI appends the observation to the assistant's words or sends it after them."""
    calls: list[Used] = []
    for role, text in turns:
        if role == "assistant":
            calls += [Used(name) for name in _ACTION.findall(text)]
        elif not text.lstrip().startswith("Observation:"):
            continue
        observed = _OBSERVATION.search(text)
        if observed and calls:
            calls[-1] = Used(calls[-1].tool, observed[1].strip())
    return calls
