from crewai import Agent, Crew, Process, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.project import CrewBase, agent, crew, task

from support_desk.tools.policy import ReadPolicy


@CrewBase
class ReplyCrew:
    """Reply Crew"""

    agents: list[BaseAgent]
    tasks: list[Task]

    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @agent
    def policy_reader(self) -> Agent:
        return Agent(
            config=self.agents_config["policy_reader"],  # type: ignore[index]
            tools=[ReadPolicy()],
        )

    @agent
    def reply_writer(self) -> Agent:
        return Agent(
            config=self.agents_config["reply_writer"],  # type: ignore[index]
        )

    @task
    def policy_task(self) -> Task:
        return Task(
            config=self.tasks_config["policy_task"],  # type: ignore[index]
        )

    @task
    def brief_task(self) -> Task:
        return Task(
            config=self.tasks_config["brief_task"],  # type: ignore[index]
        )

    @crew
    def crew(self) -> Crew:
        """Creates the Reply Crew"""
        return Crew(
            agents=self.agents,
            tasks=self.tasks,
            process=Process.sequential,
            verbose=True,
        )
