#!/usr/bin/env python
from crewai import Agent, Crew, Task
from crewai.project import CrewBase, agent, crew, task

import changelog


@CrewBase
class ReleaseNotes:
    agents_config = "agents.yaml"
    tasks_config = "tasks.yaml"

    @agent
    def developer(self) -> Agent:
        return Agent(config=self.agents_config["developer"], tools=[changelog.read_changelog])

    @task
    def collect(self) -> Task:
        return Task(config=self.tasks_config["collect"])

    @task
    def announce(self) -> Task:
        return Task(config=self.tasks_config["announce"], output_file="NOTES.md")

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks)


if __name__ == "__main__":
    ReleaseNotes().crew().kickoff(inputs={"version": "2.0"})
