from textwrap import dedent

from crewai import Task

from agents import local_expert, travel_concierge

gather_task = Task(
    description=dedent("""
        Compile what somebody who likes {interests} has to know about {city}.
        Ask the city guide for prices and opening times, you will be tipped!
    """),
    expected_output="A guide to {city} with 3 bullet points",
    agent=local_expert,
)

plan_task = Task(
    description=dedent("""
        Expand this guide into a {days}-day itinerary.
        The traveller comes from {origin}.
    """),
    expected_output="A complete plan for {days} days, formatted as markdown",
    agent=travel_concierge,
    context=[gather_task],
    output_file="trip_plan.md",
)
