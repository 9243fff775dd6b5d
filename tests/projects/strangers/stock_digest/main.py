# Warning control
import warnings
warnings.filterwarnings('ignore')

import os
os.environ["OPENAI_API_KEY"] = "sk-put-your-own-key-here"
os.environ["OPENAI_MODEL_NAME"] = 'gpt-4o'

from crewai import Agent, Task, Crew
from crewai.tools import tool


@tool
def closing_price(company: str) -> str:
    """The closing price of a company's share."""
    return "Closing price: 41.20 EUR, up 3 percent"


watcher = Agent(
    role="Market Watcher",
    goal="Know what happened to {company} today",
    backstory="You watch the market "
              "so that nobody else has to.",
    tools=[closing_price],
    allow_delegation=False,
    verbose=True
)

writer = Agent(
    role="Digest Writer",
    goal="Write a digest that can be read in the lift",
    backstory="You write short sentences.",
    allow_delegation=False,
    verbose=True
)

watch = Task(
    description="1. Get the closing price of {company}.\n"
                "2. Say in one sentence what it means.",
    expected_output="The price and one sentence about it",
    agent=watcher,
)

write = Task(
    description="Write the digest on {company} for {reader}.",
    expected_output="A digest in markdown with 3 points",
    agent=writer,
    output_file="digest.md",
)

crew = Crew(
    agents=[watcher, writer],
    tasks=[watch, write],
    verbose=True
)

result = crew.kickoff(inputs={"company": "Acme Steel", "reader": "the board"})

print("######################")
print(result.raw)
