from crewai import Agent

from tools.guide_tools import GuideTools

local_expert = Agent(
    role="Local Expert at {city}",
    goal="Provide the BEST insights about {city}",
    backstory="""You have lived in {city} all your life and show
    it to friends of friends every weekend.""",
    tools=[GuideTools.look_up],
    allow_delegation=False,
    verbose=True,
)

travel_concierge = Agent(
    role="Amazing Travel Concierge",
    goal="""Create the most amazing itinerary with a budget
    and packing suggestions""",
    backstory="""Specialist in travel planning and logistics
    with decades of experience""",
    allow_delegation=False,
    verbose=True,
)
