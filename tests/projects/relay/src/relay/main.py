"""A flow of a plain method, a crew and a method with an agent of its own. It goes on when files in its folder say so."""

import time
from pathlib import Path

from crewai import Agent, Crew, Task
from crewai.flow.flow import Flow, listen, start
from crewai.tools import tool
from pydantic import BaseModel


def wait_for(name: str) -> None:
    while not Path(name).exists():
        time.sleep(0.02)


@tool("Check Facts")
def check_facts(claim: str) -> str:
    """Check a claim."""
    wait_for("checked")
    return "It is so."


class State(BaseModel):
    topic: str = "tea"
    words: int = 100


class Relay(Flow[State]):
    @start()
    def gather(self):
        wait_for("gathered")
        return {"topic": self.state.topic, "words": self.state.words}

    @listen(gather)
    def write(self, notes):
        writer = Agent(
            role="Writer", goal="Write", backstory="Terse.", llm="openai/gpt-4o-mini", tools=[check_facts]
        )
        draft = Task(
            name="draft", description="Write on {topic}.", expected_output="A draft.", agent=writer
        )
        return Crew(agents=[writer], tasks=[draft]).kickoff(inputs={"topic": notes["topic"]})

    @listen(write)
    def publish(self, draft):
        editor = Agent(role="Editor", goal="Name it", backstory="Picky.", llm="openai/gpt-4o-mini")
        title = editor.kickoff(f"A title for a text on {self.state.topic}, please.").raw
        return {"topic": self.state.topic, "titled": bool(title), "draft": draft}


def kickoff():
    Relay().kickoff()


def plot():
    Relay().plot()
