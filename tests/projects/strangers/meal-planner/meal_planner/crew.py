from typing import List

from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task, tool
from crewai.tools import BaseTool
from pydantic import BaseModel


class MealPlan(BaseModel):
    title: str
    meals: List[str]


class MarketPrices(BaseTool):
    name: str = "market_prices"
    description: str = "What vegetables cost at the market today."

    def _run(self, diet: str) -> str:
        return "Leeks 2 EUR, carrots 1 EUR, chanterelles 9 EUR"


@CrewBase
class MealPlannerCrew:
    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @tool
    def market_prices(self):
        return MarketPrices()

    @agent
    def cook(self) -> Agent:
        return Agent(config=self.agents_config["cook"])

    @task
    def shop_task(self) -> Task:
        return Task(config=self.tasks_config["shop_task"])

    @task
    def plan_task(self) -> Task:
        return Task(config=self.tasks_config["plan_task"], output_json=MealPlan)

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential, verbose=True)
