"""Three tasks, one after the other. Those that FORGE_ASKS names ask a person."""

import os

from crewai import Agent, Crew, Task
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import tool

from forge.model import ForgeLLM

ASKS = os.environ.get("FORGE_ASKS", "").split(",")
# The last task stands in the crew twice: no other process could tell which of them is meant.
TWICE = "FORGE_TWICE" in os.environ


@tool("Weigh")
def weigh(order: str) -> str:
    """Weigh what is there."""
    return "1 kg"


@CrewBase
class Forge:
    agents_config = {}
    tasks_config = {}

    @agent
    def smith(self) -> Agent:
        return Agent(role="Smith", goal="Forge", backstory="Terse.", llm=ForgeLLM(model="forge"), tools=[weigh])

    def _task(self, name: str) -> Task:
        return Task(
            name=name,
            description="Forge the order {order} at {model} .",
            expected_output="A hook",
            agent=self.smith(),
            human_input=name in ASKS,
        )

    @task
    def heat_task(self) -> Task:
        return self._task("heat_task")

    @task
    def strike_task(self) -> Task:
        return self._task("strike_task")

    @task
    def cool_task(self) -> Task:
        return self._task("cool_task")

    @crew
    def crew(self) -> Crew:
        tasks = [*self.tasks, self.tasks[-1]] if TWICE else self.tasks
        return Crew(agents=self.agents, tasks=tasks)
