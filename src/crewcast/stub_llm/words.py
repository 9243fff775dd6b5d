"""The words of a prompt: which of them it is about, and how to quote them."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

# Words that never name a topic: grammar, and the verbs and nouns that every instruction uses.
_STOP_WORDS: Final = """
    a about above absolutely according across act actual after again against agent all also although always am among an and
    another answer any apply are around as asked assume at audience available based be because been before being below best better
    between brief both bullet but by can cannot clear clearly collect compare complete comprehensive concise conduct content
    context could covering create criteria current currently describe detailed details did do does doing done draft during each
    either end ensure estimate etc eur every exact expected explain few final find findings first focus follow following for format from
    full further gbp get give given gives good got great had has have having he help her here him his how however i if
    important in include including information instead interesting into is it item its job just keep key know
    knack known last latest lead least less let like list look made make making many may me might mind more most much
    must my name need needs never new next no not note notes nothing now of off often on once one one-page only or other our out
    output over own page paragraph part pay per percent personal please point points possible produce provide put read relevant
    reply report recommendation research response result return review same say search section see seasoned senior sentence set share
    she should show single so some specific state step such sure take task tell than that the their them then there these
    they thing things this thorough those three through to together too tool tools top turn two under understand
    until up upon us usd use used useful using very want was way we well were what when where whether which while who
    why will with within without word words work would write you your
"""
_STOP: Final = frozenset(_STOP_WORDS.split())
_WORD: Final = re.compile(r"[^\W_][\w'\u2019-]*")
_CLAUSE: Final = re.compile(r"[.,;:!?()\[\]{}\"“”`*#|/\n]+|\s[-–—]\s")  # noqa: RUF001 - real text has these dashes
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
# A sentence that begins so is an instruction, and its first word the verb: 'Plan the ...', 'List 3 ...', 'Sum it up'.
_INSTRUCTION: Final = re.compile(
    r"(?:^|(?<=[.!?:;\n]))(\s*)[A-Z][a-z]+(?= +(?:\d+|an?|the|all|both|each|every|how|it|its|one|their|them|this|these|those|what|which|whether|your)\b)"
)

# Prompts of a real crew can be huge (a whole context of earlier tasks); its topic shows well before this.
_READ_AT_MOST: Final = 6000
_ENOUGH: Final = 3


def seed(*parts: str) -> int:
    """The only source of variety: a number that follows from the text and from nothing else."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")


def count_tokens(text: str) -> int:
    """Words and punctuation marks: not a real tokenizer, but it grows with the text as a real one does."""
    return len(_TOKEN.findall(text))


def squeeze(text: str) -> str:
    return " ".join(text.split())


def excerpt(text: str, limit: int = 240) -> str:
    """The beginning of a text on one line, cut between words."""
    line = squeeze(text)
    if len(line) <= limit:
        return line
    return line[:limit].rsplit(" ", 1)[0].rstrip(",;:") + " ..."


def first_sentence(text: str, limit: int = 240) -> str:
    return excerpt(_SENTENCE_END.split(text.strip(), maxsplit=1)[0], limit).rstrip(".: ")


def capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def phrases(text: str, favoured: str = "", limit: int = 8) -> tuple[str, ...]:
    """What the text is about, best first: its repeated runs of content words, longer runs before shorter ones.

    A `{topic}` that CrewAI interpolates into role, goal and task repeats more than anything else, so it wins; a run
    that `favoured` (the role) repeats wins over one that it doesn't.
    """
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for run in _runs(_INSTRUCTION.sub(r"\1", text[:_READ_AT_MOST])):
        for size in range(1, 5):
            for start in range(len(run) - size + 1):
                gram = " ".join(run[start : start + size])
                counts[gram.lower()] += 1
                shown.setdefault(gram.lower(), gram)
    # Said only within a longer run, a run is a part of that one's topic and none of its own.
    parts = {
        " ".join(run[start:end])
        for gram in counts
        if counts[gram] > 1
        for run in [gram.split()]
        for start in range(len(run))
        for end in range(start + 1, len(run) + 1)
        if end - start < len(run) and counts[" ".join(run[start:end])] == counts[gram]
    }
    order = {gram: place for place, gram in enumerate(shown)}
    favoured = " ".join(_WORD.findall(favoured.lower()))

    def rank(gram: str) -> tuple[int, int]:
        size = gram.count(" ") + 1
        weight = (
            counts[gram] * size * (3 if f" {gram} " in f" {favoured} " else 1)
            if counts[gram] > 1
            else min(size, 3)
        )
        return (-weight, order[gram])

    chosen: list[str] = []
    taken: set[str] = set()
    for gram in sorted(counts.keys() - parts, key=rank):
        own = set(gram.split())
        if own & taken or any(word.isdigit() for word in own):
            continue
        if counts[gram] == 1 and " " not in gram and len(chosen) >= _ENOUGH:
            break  # from here on come words said once: verbs and fillers more often than topics
        chosen.append(shown[gram])
        taken |= own
        if len(chosen) == limit:
            break
    return tuple(chosen)


def _runs(text: str) -> Iterator[list[str]]:
    for clause in _CLAUSE.split(text):
        run: list[str] = []
        for word in _WORD.findall(clause):
            word = word.removesuffix("'s")  # noqa: PLW2901
            if (
                word.lower() in _STOP or len(word) == 1 or "_" in word
            ):  # names of tools and inputs are no topics
                if run:
                    yield run
                run = []
            else:
                run.append(word)
        if run:
            yield run


def overlap(a: str, b: str) -> int:
    """How many content words two texts share; plural and singular count as the same word."""
    return len(_stems(a) & _stems(b))


def _stems(text: str) -> set[str]:
    found = (word.lower() for word in re.findall(r"[^\W_]+", text[:_READ_AT_MOST]))
    return {word.rstrip("s")[:8] for word in found if word not in _STOP and len(word) > 2}
