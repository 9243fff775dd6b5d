from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import tool


@tool("Rhyming Dictionary")
def rhymes(word: str) -> str:
    """Finds words that rhyme."""
    return "It rhymes with trees, breeze and cheese"


@CrewBase
class PoemCrew:
    """Poem Crew"""

    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @agent
    def poem_writer(self) -> Agent:
        return Agent(config=self.agents_config["poem_writer"], tools=[rhymes])

    @task
    def find_rhymes(self) -> Task:
        return Task(config=self.tasks_config["find_rhymes"])

    @task
    def write_poem(self) -> Task:
        return Task(config=self.tasks_config["write_poem"])

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential, verbose=True)
