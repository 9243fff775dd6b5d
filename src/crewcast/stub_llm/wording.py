"""Which words a field gets: values that a reader of the prompt would expect under that name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from crewcast.stub_llm import words


@dataclass(frozen=True, slots=True)
class Topic:
    """What the values talk about. `brief` is the task in a sentence, `short` asks for phrases (tool arguments)."""

    subject: str
    phrases: tuple[str, ...]
    brief: str
    text: str
    short: bool = False


_URL: Final = re.compile(r"https?://[^\s<>\"')\]]+")
_PATH: Final = re.compile(r"(?<![\w/])[\w./-]*\w\.(?:md|txt|csv|json|yaml|pdf|html|py)\b")
_NUMBER: Final = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
# How far, in characters, a number may stand from the word it belongs to.
_NEAR: Final = 60
_WHOLE_TASK: Final = re.compile(
    r"^(task|question|context|prompt|instructions?|content|text|body|description|plan|message)$"
)
_SEARCHED: Final = re.compile(r"quer|search|keyword")
_LABEL: Final = re.compile(r"name|title|headline|topic|subject|keyword|tag|categor|quer|label|scope")
# Forms that a description prescribes: what it calls them, how one looks in a text, and one to go by.
_PRESCRIBED: Final = (
    (re.compile(r"\bYYYY-MM-DD\b"), re.compile(r"\b\d{4}-\d{2}-\d{2}\b"), "2025-01-15"),
    (re.compile(r"\bHH:MM\b", re.IGNORECASE), re.compile(r"\b\d{2}:\d{2}\b"), "09:30"),
)
_COUNTED: Final = re.compile(r"(^|_)(number|index|step|rank|position|order|id)$")
# Booleans that report trouble or ask for more; said yes to, they would keep a crew from ending.
_TROUBLE: Final = re.compile(
    r"^(needs?|requires?|should_(retry|replan)|has_(error|issue)|is_(error|spam)|failed|insert_new$)"
)
# Lists that hold what stands in the way: empty, nothing does.
_OBSTACLES: Final = re.compile(r"^(depends|dependenc|error|issue|missing|remaining|suggested_refinement)")
_REFUSAL: Final = re.compile(r"\b(no|not|wrong|change|revise|redo|bad|again)\b")
_REFUSING: Final = re.compile(
    r"(?:^|_)(?:not|needs?|rej|revis|rework|rewrite|redo|retry|again|chang|den[iy]|fix|fail)", re.IGNORECASE
)


def pick(options: Sequence[Any], text: str, index: int = 0) -> Any:
    """The option that the prompt names most often, else the first one; further items of a list take the next ones.

    A prompt that lists all options, each as often, says nothing; then none that asks for the work again is taken before
    the others, or a loop that ends with an approval would not end. After 'Feedback:' a person's words decide.
    """
    feedback = re.search(r"Feedback: *(.+)", text)
    said = (feedback[1] if feedback else text).lower()
    times = {option: _times(said, option) for option in options if isinstance(option, str)}
    if feedback and not any(times.values()) and _REFUSAL.search(said):
        times = {option: 1 for option in times if _REFUSING.search(option)}
    named = sorted((option for option in times if times[option]), key=lambda option: -times[option])
    says_nothing = len(named) == len(options) and len(set(times.values())) == 1
    if says_nothing or not named:
        order = sorted(options, key=lambda option: isinstance(option, str) and bool(_REFUSING.search(option)))
    else:
        order = named
    return order[index] if index < len(order) else options[index % len(options)]


def _times(text: str, option: str) -> int:
    """How often the text says it. Inflections count: 'approve' says 'approved'."""
    stem = option.lower().replace("_", " ")
    stem = stem[:-2] if len(stem) > 6 else stem
    return len(re.findall(rf"(?<!\w){re.escape(stem)}", text))


def yes_or_no(name: str) -> bool:
    return _TROUBLE.search(name) is None


def empty_list(name: str) -> bool:
    return _OBSTACLES.search(name) is not None


def amount(topic: Topic, name: str, index: int, *, whole: bool) -> float:
    """The number a field would like to be, before its bounds are asked."""
    if _COUNTED.search(name):
        return index + 1
    said = stated(topic, name)
    usual = 3 if whole else 0.7
    return usual if said is None else said


def stated(topic: Topic, name: str) -> float | None:
    """The number that the task says next to an argument's name, if any: '1200 customers at a price of 40'."""
    if not topic.short:
        return None
    stems = [word[:6] for word in name.lower().split("_") if len(word) > 2]
    named = [found.start() for stem in stems for found in re.finditer(re.escape(stem), topic.text.lower())]
    numbers = [(float(found[0].replace(",", "")), found.start()) for found in _NUMBER.finditer(topic.text)]
    near = [(min(abs(at - place) for place in named), value) for value, at in numbers] if named else []
    return min(near)[1] if near and min(near)[0] < _NEAR else None


def wording(topic: Topic, name: str, description: str, index: int) -> str:
    name = name.lower()
    for form, shape, usual in _PRESCRIBED:
        if form.search(description):
            found = shape.search(topic.text)
            return found[0] if found else usual
    if "url" in name or "link" in name:
        found = _URL.search(topic.text)
        return found[0].rstrip(".,") if found else "https://example.com/"
    if re.search(r"file|path|directory", name):
        found = _PATH.search(topic.text)
        return found[0] if found else "." if "directory" in name else "report.md"
    if topic.short:
        if _SEARCHED.search(name):
            return " ".join(topic.phrases[:4]) or topic.subject
        return topic.brief if _WHOLE_TASK.search(name) else _argument(topic, name) or topic.subject
    spoken = phrase(topic, index)
    if _LABEL.search(name):
        return words.capitalize(spoken) if re.search(r"name|title|headline", name) else spoken
    about = words.capitalize(name.replace("_", " ").strip()) or "Point"
    detail = f" ({words.first_sentence(description, 80)})" if description else ""
    return f"{about} for {topic.subject}{detail}: {spoken}."


def listed(topic: Topic, name: str) -> list[str]:
    """What the task, or what came before it, lists behind the name of a list: 'Dishes without nuts: A; B; C'."""
    spoken = re.escape(name.replace("_", " ").removesuffix("s"))
    said = re.search(rf"\b{spoken}s?\b[^.:;\"\n]{{0,60}}: *([^.:\"\n]+)", topic.text, re.IGNORECASE)
    return [item for part in re.split(r"[;,]", said[1]) if (item := part.strip())] if said and name else []


def phrase(topic: Topic, index: int) -> str:
    return topic.phrases[index % len(topic.phrases)] if topic.phrases else topic.subject


def _argument(topic: Topic, name: str) -> str:
    """The phrase that the task puts behind the argument's own name: 'for an audience of city planners'."""
    spoken = re.escape(name.replace("_", " "))
    said = re.search(
        rf"\b{spoken}s?(?: of| is| named)?[:\s]+['\"]?([^.,;:'\"\n]+)", topic.text, re.IGNORECASE
    )
    found = words.phrases(said[1]) if said and name else ()
    if not said or not found:
        return ""
    first = min(found, key=said[1].find)
    # 'dairy and fish' is one answer; in 'hotels and write a report' the sentence goes on.
    _, _, rest = said[1].partition(first)
    also = re.match(r" (?:and|or) [\w-]+", rest)
    return first + also[0] if also and words.phrases(also[0]) else first
