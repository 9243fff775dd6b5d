import os
from dotenv import load_dotenv

load_dotenv()
os.environ["OPENAI_MODEL_NAME"] = "gpt-4o-mini"

from crewai import Crew, Process

from agents import local_expert, travel_concierge
from tasks import gather_task, plan_task

crew = Crew(
    agents=[local_expert, travel_concierge],
    tasks=[gather_task, plan_task],
    process=Process.sequential,
    verbose=True,
)

if __name__ == "__main__":
    print("## Welcome to the trip planner")
    print("------------------------------")
    result = crew.kickoff(inputs={
        "origin": "Graz",
        "city": "Porto",
        "days": 3,
        "interests": "tiles, port wine and old trams",
    })
    print("\n\n########################")
    print("## Here is your trip plan")
    print("########################\n")
    print(result)
