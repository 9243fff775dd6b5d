# mypy: ignore-errors
"""A project as `crewai create crew --classic` lays it out; only its language model is scripted."""

import os

from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, after_kickoff, agent, before_kickoff, crew, task
from crewai.tools import tool
from scripted import ScriptedLLM, answer, use


@tool("Library Search")
def library_search(query: str) -> str:
    """Search the library."""
    return f"3 books on {query}"


@CrewBase
class Newsroom:
    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @before_kickoff
    def prepare(self, inputs):
        inputs["audience"] = "everyone"
        return inputs

    @after_kickoff
    def sign(self, result):
        result.raw += f" ({os.environ['NEWSROOM_STYLE']}, {os.environ['NEWSROOM_TAKEN']})"
        return result

    @agent
    def researcher(self) -> Agent:
        llm = ScriptedLLM.saying(use("Library Search", query="bees"), answer("bees dance"))
        return Agent(config=self.agents_config["researcher"], tools=[library_search], llm=llm)

    @agent
    def writer(self) -> Agent:
        return Agent(config=self.agents_config["writer"], llm=ScriptedLLM.saying(answer("Bees!")))

    @task
    def research_task(self) -> Task:
        return Task(config=self.tasks_config["research_task"])

    @task
    def write_task(self) -> Task:
        return Task(config=self.tasks_config["write_task"])

    @crew
    def crew(self) -> Crew:
        print("the crew is built")
        return Crew(name="newsroom", agents=self.agents, tasks=self.tasks, process=Process.sequential)
