from typing import Literal

from crewai import Agent, Crew, Process, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.project import CrewBase, agent, crew, task
from pydantic import BaseModel, Field

from support_desk.tools.order_lookup import OrderLookup


class Triage(BaseModel):
    category: Literal["delivery", "refund", "technical"] = Field(..., description="What the ticket is about.")
    urgency: Literal["normal", "high"] = Field(..., description="High if the customer names a date.")


@CrewBase
class TriageCrew:
    """Triage Crew"""

    agents: list[BaseAgent]
    tasks: list[Task]

    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @agent
    def order_clerk(self) -> Agent:
        return Agent(
            config=self.agents_config["order_clerk"],  # type: ignore[index]
            tools=[OrderLookup()],
        )

    @agent
    def dispatcher(self) -> Agent:
        return Agent(
            config=self.agents_config["dispatcher"],  # type: ignore[index]
        )

    @task
    def lookup_task(self) -> Task:
        return Task(
            config=self.tasks_config["lookup_task"],  # type: ignore[index]
        )

    @task
    def triage_task(self) -> Task:
        return Task(
            config=self.tasks_config["triage_task"],  # type: ignore[index]
            output_pydantic=Triage,
        )

    @crew
    def crew(self) -> Crew:
        """Creates the Triage Crew"""
        return Crew(
            agents=self.agents,
            tasks=self.tasks,
            process=Process.sequential,
            verbose=True,
        )
