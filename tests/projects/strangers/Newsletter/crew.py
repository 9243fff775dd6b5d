import os

from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task
from dotenv import load_dotenv

from tools import ArchiveTool

load_dotenv()


@CrewBase
class NewsletterCrew():
    """Schreibt den Newsletter, jede Woche für Kundinnen und Kunden"""

    agents_config = os.path.join("config", "agents.yaml")
    tasks_config = os.path.join("config", "tasks.yaml")

    @agent
    def archivist(self) -> Agent:
        return Agent(config=self.agents_config["archivist"], tools=[ArchiveTool()])

    @agent
    def editor(self) -> Agent:
        return Agent(config=self.agents_config["editor"])

    @task
    def look_back(self) -> Task:
        return Task(config=self.tasks_config["look_back"])

    @task
    def write_issue(self) -> Task:
        return Task(config=self.tasks_config["write_issue"])

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential)


if __name__ == "__main__":
    print(NewsletterCrew().crew().kickoff(inputs={"topic": "Äpfel"}))
