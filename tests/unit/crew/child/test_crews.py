"""What a crew takes, by the texts in which CrewAI fills in names."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from crewcast.crew.child.crews import inputs_of


@dataclass
class Task:
    description: str = ""
    expected_output: str = ""
    output_file: str | None = None


@dataclass
class Agent:
    role: str = ""
    goal: str = ""
    backstory: str | None = None


@dataclass
class Crew:
    tasks: list[Task] = field(default_factory=list)
    agents: list[Any] = field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("about {topic}", ["topic"]),
        ("{b} {a} {b}", ["a", "b"]),
        ("{user-name} {_x1}", ["_x1", "user-name"]),
        # Samples of JSON, and what CrewAI leaves as it is.
        ('{"title": "..."}', []),
        ("{ topic } {two words} {1st} {}", []),
        ('{"list": [{"title": "{topic}"}]}', ["topic"]),
        ('{"deep": {topic}}', ["topic"]),
        ("{{topic}}", ["topic"]),
    ],
)
def test_the_names_in_braces(text, names):
    assert inputs_of(Crew(tasks=[Task(text)])) == names


def test_every_text_that_is_filled_in_is_read():
    task = Task("{description}", "{expected}", "{file}.md")
    agent = Agent("{role}", "{goal}", "{backstory}")
    names = ["backstory", "description", "expected", "file", "goal", "role"]
    assert inputs_of(Crew([task, Task()], [agent, Agent(), object()])) == names
