from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task
from crewai.agents.agent_builder.base_agent import BaseAgent

from market_brief.tools.market_notes import SearchMarketNotes
from market_brief.tools.market_size import estimate_market_size


@CrewBase
class MarketBrief():
    """MarketBrief crew"""

    agents: list[BaseAgent]
    tasks: list[Task]

    @agent
    def market_researcher(self) -> Agent:
        return Agent(
            config=self.agents_config['market_researcher'], # type: ignore[index]
            tools=[SearchMarketNotes()],
            verbose=True
        )

    @agent
    def market_analyst(self) -> Agent:
        return Agent(
            config=self.agents_config['market_analyst'], # type: ignore[index]
            tools=[estimate_market_size],
            verbose=True
        )

    @agent
    def brief_writer(self) -> Agent:
        return Agent(
            config=self.agents_config['brief_writer'], # type: ignore[index]
            verbose=True
        )

    @task
    def research_task(self) -> Task:
        return Task(
            config=self.tasks_config['research_task'], # type: ignore[index]
        )

    @task
    def sizing_task(self) -> Task:
        return Task(
            config=self.tasks_config['sizing_task'], # type: ignore[index]
        )

    @task
    def brief_task(self) -> Task:
        return Task(
            config=self.tasks_config['brief_task'], # type: ignore[index]
            output_file='brief.md'
        )

    @crew
    def crew(self) -> Crew:
        """Creates the MarketBrief crew"""
        return Crew(
            agents=self.agents,
            tasks=self.tasks,
            process=Process.sequential,
            verbose=True,
        )
