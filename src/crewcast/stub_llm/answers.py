"""From a request to its answer: no I/O, no clock, no chance but a hash of the prompt.

Every conversation ends: a tool is called at most once, and once tools have spoken the answer follows.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from crewcast.stub_llm import words
from crewcast.stub_llm.prompt import Prompt, Tool, Used, read
from crewcast.stub_llm.schema import fit
from crewcast.stub_llm.wording import Topic, pick

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Text, or tool calls: a model that calls a tool says nothing beside it."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


_OPENINGS: Final = (
    "Here is what matters about {subject}.",
    "These notes on {subject} answer the request in full.",
    "{Subject}: a closer look, with the results in short.",
    "The picture for {subject} is clearer than it seems at first.",
)
# Written so that subject and other may be singular or plural.
_POINTS: Final = (
    "Anyone looking at {subject} should settle {other} first.",
    "{Subject} and {other} are best planned together.",
    "Early progress in {subject} will show most clearly in {other}.",
    "The main risk around {subject} lies in {other}.",
    "Money spent on {subject} pays off once {other} can be measured.",
    "People who know {other} well will ask about {subject} early.",
    "Differences across {subject} can mostly be traced to {other}.",
    "A small pilot on {other} tells more about {subject} than a long study.",
    "Good records of {other} make {subject} easier to judge.",
    "In {subject}, change tends to begin with {other}.",
)
_CLOSINGS: Final = (
    "The next step is to agree on who looks after {other}.",
    "Start with {other} and come back to {subject} in a month.",
    "Taken together, this is a sound basis for a decision on {subject}.",
)
_REPORTED: Final = re.compile(r'tool reported: "([^"]+)"')
_BUILT_ON: Final = re.compile(r'what came before: "([^"]+)"')
# Its own sentences, when an earlier answer comes back within a task: they say nothing of that task's topic.
_OWN_MARK: Final = "The request was: "
_OWN: Final = re.compile(
    "|".join(
        [
            rf"{_OWN_MARK}[^\n]{{1,260}}?\.",
            rf"The \w+ {_REPORTED.pattern}",
            r'It builds on what came before: (?:"[^"]*"(?: and )?)+',
            *(
                r"(?:^|(?<=[.:-] ))" + re.sub(r"\\\{\w+\\\}", ".{1,80}?", re.escape(template))
                for template in (*_OPENINGS, *_POINTS, *_CLOSINGS)
            ),
        ]
    ),
    re.MULTILINE,
)
# How much of a task is searched for them.
_TOPIC_WITHIN: Final = 30_000
_BULLETS: Final = re.compile(
    r"\b(\d{1,2}|two|three|four|five|six|seven|eight|nine|ten)\b[\w\s-]{0,24}?\b(?:bullet|point|item|finding|fact|idea|recommendation)",
    re.IGNORECASE,
)
_NUMBER_WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_OUTCOMES: Final = re.compile(r"Possible outcomes: *([^\n]+)")
# How agents that route a flow are told to: 'Return exactly one bare value: approved, rejected or unclear.'
_ONE_OF: Final = re.compile(
    r"\b(?:exactly|only) one(?: bare| single)? (?:of|value|word|label|route|option|outcome|category)\b[^:.\n]{0,40}: *([^.\n]+)",
    re.IGNORECASE,
)
# The words that CrewAI's planning looks for; without them it asks for a better plan, without end.
_READY: Final = "READY: I am ready to execute the task."
_POINT: Final = re.compile(r"^[-*] +(.+)$", re.MULTILINE)
# CrewAI's own line between the outputs of two tasks.
_OUTPUT_BREAK: Final = re.compile(r"\n-{5,}\n")
_CALL_TEXT: Final = re.compile(r"Action: *([^\n]+)\n+Action Input: *(\{.*\})", re.DOTALL)


def answer(
    messages: Sequence[Json],
    tools: Sequence[Json] = (),
    *,
    tool_choice: Any = "auto",
    parallel_tool_calls: bool = True,
    response_format: Json | None = None,
) -> Answer:
    """The model's turn in a chat completion."""
    prompt = read(messages)
    topic = _topic(prompt)
    # A model held to JSON writes nothing else, a step of a text tool loop neither.
    held = response_format is not None and response_format.get("type") != "text"
    offered = [_native_tool(tool) for tool in tools]
    if offered and tool_choice != "none" and not prompt.must_finish:
        wanted = _wanted(offered, prompt, tool_choice)
        if wanted:
            chosen = wanted if parallel_tool_calls else wanted[:1]
            return Answer(tool_calls=tuple(_call(tool, topic, prompt) for tool in chosen))
    if prompt.text_tools and not offered and not held and not prompt.must_finish:
        unused = _wanted(prompt.text_tools, prompt, "auto")
        if unused:
            return Answer(_text_call(unused[0], topic))
    schema = _schema(response_format) or (prompt.schema if response_format is None else None)
    if schema is not None or response_format is not None:
        body = json.dumps(_structured(schema or {}, prompt, topic), ensure_ascii=False)
        if held:
            return Answer(body)
    else:
        body = _outcome(prompt) or _prose(prompt, topic)
    if prompt.must_be_ready:
        body += f"\n\n{_READY}"
    if prompt.wants_final_answer:
        return Answer(f"Thought: I have what I need to write about {topic.subject}.\nFinal Answer: {body}")
    return Answer(body)


def _topic(prompt: Prompt) -> Topic:
    said = f"{prompt.task}\n{prompt.goal}"
    found = words.phrases(
        _OWN.sub(".", said[:_TOPIC_WITHIN]) if _OWN_MARK in said else said, favoured=prompt.role
    )
    subject = found[0] if found else "the request"
    brief = _whole(words.first_sentence(prompt.task)) or subject
    return Topic(subject=subject, phrases=found, brief=brief, text=f"{prompt.task}\n{prompt.context}")


def _whole(sentence: str) -> str:
    """Without a quotation that was cut in its middle."""
    return sentence.rpartition('"')[0].rstrip(" :") if sentence.count('"') % 2 else sentence


def _native_tool(tool: Json) -> Tool:
    function = tool.get("function", tool)
    return Tool(
        str(function.get("name", "")), str(function.get("description", "")), function.get("parameters") or {}
    )


def _wanted(tools: Sequence[Tool], prompt: Prompt, tool_choice: Any) -> list[Tool]:
    """The tools to call now: one the request insists on, those that the task names, else the one closest to it."""
    used = {_plain(call.tool) for call in prompt.used}
    unused = [tool for tool in tools if _plain(tool.name) not in used]
    if isinstance(tool_choice, Mapping):
        name = tool_choice.get("function", tool_choice).get("name")
        return [tool for tool in unused if tool.name == name]
    named = [tool for tool in tools if _plain(tool.name) in _plain(prompt.task)]
    if named:
        return [tool for tool in named if tool in unused]
    if used:
        return []
    # Ties keep the project's own order; a tool that writes memories or files is never the natural first step.
    return sorted(unused, key=lambda tool: (_writes(tool), -words.overlap(_about(tool), prompt.task)))[:1]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()


def _about(tool: Tool) -> str:
    return f"{_plain(tool.name)} {tool.description}"


def _writes(tool: Tool) -> bool:
    return _plain(tool.name).startswith(("save", "delete", "remove", "write", "add image"))


def _arguments(tool: Tool, topic: Topic) -> dict[str, Any]:
    made = fit(tool.parameters, replace(topic, short=True)) if tool.parameters.get("properties") else {}
    if "coworker" in made and (team := re.search(r"coworkers: *\[?([^\n]+)", tool.description)):
        made["coworker"] = re.split(r",|\]", team[1])[0].strip()
    return dict(made)


def _call(tool: Tool, topic: Topic, prompt: Prompt) -> ToolCall:
    arguments = json.dumps(_arguments(tool, topic), ensure_ascii=False)
    # Ids must differ between the calls of one conversation, and between the runs of two prompts.
    return ToolCall(f"call_{words.seed(prompt.text, tool.name):016x}", tool.name, arguments)


def _text_call(tool: Tool, topic: Topic) -> str:
    arguments = json.dumps(_arguments(tool, topic), ensure_ascii=False)
    return (
        f"Thought: I should look into {topic.subject} with {tool.name} before I answer.\n"
        f"Action: {tool.name}\nAction Input: {arguments}"
    )


def _schema(response_format: Json | None) -> Json | None:
    wrapper = (response_format or {}).get("json_schema")
    return wrapper.get("schema") if isinstance(wrapper, Mapping) else None


def _structured(schema: Json, prompt: Prompt, topic: Topic) -> Any:
    properties = schema.get("properties", {})
    if {"tool_name", "arguments"} <= set(properties) and (call := _CALL_TEXT.search(prompt.text)):
        # CrewAI asks a function_calling_llm to put a tool call that it could not parse into this form.
        return {"tool_name": call[1].strip(), "arguments": json.loads(call[2])}
    if not schema:
        return {"answer": _prose(prompt, topic), "topics": list(topic.phrases[:3])}
    return fit(schema, topic)


def _outcome(prompt: Prompt) -> str:
    """One of the outcomes that CrewAI's human feedback, or the prompt itself, asks the model to choose from."""
    if listed := _OUTCOMES.search(prompt.text):
        return str(pick([option.strip(" '\"[]") for option in listed[1].split(",")], prompt.text))
    if listed := _ONE_OF.search(prompt.text):
        options = [option.strip(" '\"`") for option in re.split(r",|\bor\b", listed[1])]
        options = [option for option in options if option]
        if len(options) > 1 and all(re.fullmatch(r"[\w-]+", option) for option in options):
            return str(pick(options, f"{prompt.task}\n{prompt.context}"))
    return ""


def _prose(prompt: Prompt, topic: Topic) -> str:
    """A short brief in English about the task, quoting what tools and earlier tasks said."""
    number = words.seed(prompt.text, *(used.result for used in prompt.used))
    others = topic.phrases[1:] or (topic.subject,)
    parts = [
        _say(_OPENINGS[number % len(_OPENINGS)], topic.subject, others[0]),
        f"{_OWN_MARK}{topic.brief}.",
        *(_quote(used) for used in prompt.results),
    ]
    if earlier := [*_gists(prompt.context), *_handed_on(prompt.task)]:
        parts.append(f"It builds on what came before: {' and '.join(earlier)}.")
    points = "\n".join(
        f"- {_say(_POINTS[(number + place) % len(_POINTS)], topic.subject, others[place % len(others)])}"
        for place in range(_how_many(f"{prompt.task}\n{prompt.expected}"))
    )
    closing = _say(_CLOSINGS[number // 7 % len(_CLOSINGS)], topic.subject, others[1 % len(others)])
    return _parsable("\n\n".join([" ".join(parts), points, closing]))


def _quote(used: Used) -> str:
    said = re.sub(r"(?<!\.)\.$", "", words.excerpt(used.result, 300).replace('"', "'"))
    return f'The {used.tool} tool reported: "{said}".'


def _gists(context: str) -> list[str]:
    """What each earlier output found: what its tool reported, or what it built on, else its first point.

    (Whole quotes would grow.)
    """
    gists = []
    for output in _OUTPUT_BREAK.split(context)[:3] if context else ():
        found = _REPORTED.search(output) or _BUILT_ON.search(output) or _POINT.search(output)
        gists.append(_gist(found[1] if found else output))
    return gists


def _handed_on(task: str) -> list[str]:
    """The same of outputs that stand in the task itself: a flow hands them from crew to crew as inputs."""
    return [_gist(reported) for reported in _REPORTED.findall(task)[:3]]


def _gist(text: str) -> str:
    return f'"{words.first_sentence(text, 140)}"'


def _say(template: str, subject: str, other: str) -> str:
    return template.format(
        subject=subject, Subject=words.capitalize(subject), other=other, Other=words.capitalize(other)
    )


def _how_many(text: str) -> int:
    asked = _BULLETS.search(text)
    if not asked:
        return 3
    said = asked[1].lower()
    return min(max(_NUMBER_WORDS.index(said) if said in _NUMBER_WORDS else int(said), 1), len(_POINTS))


def _parsable(text: str) -> str:
    """Quoted text may hold the marks of the text tool loop; said again in an answer, they would start it anew."""
    return re.sub(r"\b(Action|Action Input|Observation|Final Answer|Thought):", r"\1 -", text)
