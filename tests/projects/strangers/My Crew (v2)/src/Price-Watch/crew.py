from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task

from .tools.prix import LecteurDePrix


class Settings:
	langue = "fr"


@CrewBase
class Thing():
	agents_config = 'config/agents.yaml'
	tasks_config = 'config/tasks.yaml'

	@agent
	def veilleur(self) -> Agent:
		return Agent(
			config=self.agents_config['veilleur de prix'],
			tools=[LecteurDePrix()],
			verbose=True
		)

	@agent
	def rédactrice(self) -> Agent:
		return Agent(
			config=self.agents_config['rédactrice'],
			verbose=True
		)

	@task
	def releve(self) -> Task:
		return Task(
			config=self.tasks_config['relevé des prix'],
			name='Relevé des prix'
		)

	@task
	def synthèse(self) -> Task:
		return Task(
			config=self.tasks_config['synthèse'],
			output_file='rapports/semaine en cours/synthèse.md'
		)

	@crew
	def crew(self) -> Crew:
		return Crew(
			agents=self.agents,
			tasks=self.tasks,
			process=Process.sequential,
			verbose=True
		)
