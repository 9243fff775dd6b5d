from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task

from acme_rates import ExchangeRates


@CrewBase
class InvoiceChecker():
    """InvoiceChecker crew"""

    @agent
    def accountant(self) -> Agent:
        return Agent(
            config=self.agents_config['accountant'], # type: ignore[index]
            tools=[ExchangeRates()],
            verbose=True
        )

    @task
    def convert_task(self) -> Task:
        return Task(
            config=self.tasks_config['convert_task'], # type: ignore[index]
        )

    @task
    def verdict_task(self) -> Task:
        return Task(
            config=self.tasks_config['verdict_task'], # type: ignore[index]
            output_file='verdict.md'
        )

    @crew
    def crew(self) -> Crew:
        return Crew(
            agents=self.agents,
            tasks=self.tasks,
            process=Process.sequential,
            verbose=True,
        )
