"""Three tasks, one after the other. Those that MILL_ASKS names ask a person."""

import os
import time
from pathlib import Path

from crewai import Agent, Crew, Task
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import tool

from mill.script import MillLLM, note

# The last task stands in the crew twice: no other process could tell which of them is meant.
TWICE = "MILL_TWICE" in os.environ
ASKS = os.environ.get("MILL_ASKS", "").split(",")


@tool("Weigh")
def weigh(folder: str, seconds: float) -> str:
    """Weigh what is there. It takes its time."""
    note(Path(folder) / "effects", began=True)
    time.sleep(seconds)
    note(Path(folder) / "effects", ended=True)
    return "1 kg"


@CrewBase
class Mill:
    agents_config = {}
    tasks_config = {}

    @agent
    def miller(self) -> Agent:
        return Agent(role="Miller", goal="Mill", backstory="Terse.", llm=MillLLM(model="mill"), tools=[weigh])

    def _task(self, name: str) -> Task:
        return Task(
            name=name,
            description="Mill what lies in the folder {folder} .",
            expected_output="Flour",
            agent=self.miller(),
            human_input=name in ASKS,
            callback=lambda output: note(
                Path(self.built._inputs["folder"]) / "effects", task=name, got=output.raw
            ),
        )

    @task
    def clean_task(self) -> Task:
        return self._task("clean_task")

    @task
    def grind_task(self) -> Task:
        return self._task("grind_task")

    @task
    def pack_task(self) -> Task:
        return self._task("pack_task")

    @crew
    def crew(self) -> Crew:
        tasks = [*self.tasks, self.tasks[-1]] if TWICE else self.tasks
        self.built = Crew(agents=self.agents, tasks=tasks)
        return self.built
