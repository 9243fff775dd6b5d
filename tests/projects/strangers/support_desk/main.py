import sys

from crewai import Agent, Crew, Task

from utils.manual import search_manual


class SupportDesk:
    def __init__(self, customer, problem):
        self.customer = customer
        self.problem = problem

    def run(self):
        agent = Agent(
            role="Support Agent",
            goal=f"Help {self.customer} at the first try",
            backstory="You have seen every printer there is.",
            tools=[search_manual],
        )
        diagnose = Task(
            name="diagnose",
            description=f"Find out in the manual why this happens: {self.problem}",
            expected_output="The cause",
            agent=agent,
        )
        answer = Task(
            description=f"Write an answer to {self.customer}.",
            expected_output="A friendly mail",
            agent=agent,
        )
        crew = Crew(agents=[agent], tasks=[diagnose, answer])
        return crew.kickoff()


print("## Support desk")
try:
    print(SupportDesk("Ms Novak", "the printer prints blank pages").run())
except Exception as e:
    print(f"Something went wrong: {e}")
    sys.exit(1)
