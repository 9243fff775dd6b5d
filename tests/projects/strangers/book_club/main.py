"""python main.py [GENRE]"""
import sys

from crewai import Agent, Crew, Process, Task
from crewai.tools import tool


@tool("Library Catalogue")
def catalogue(genre: str) -> str:
    """Lists the books of a genre that the library has twice."""
    return "Twice on the shelf: The Lighthouse, A Winter in Bruges"


def main():
    genre = sys.argv[1] if len(sys.argv) > 1 else "mystery"

    librarian = Agent(
        role="{genre} Librarian",
        goal="Pick a {genre} book for {members} readers",
        backstory="You have read everything.",
        tools=[catalogue],
        verbose=True,
    )
    host = Agent(
        role="Host",
        goal="Prepare the evening",
        backstory="You bake.",
    )
    pick = Task(
        description="Pick a {genre} book that the library has twice.",
        expected_output="One title",
        agent=librarian,
    )
    prepare = Task(
        description="Prepare 3 questions for {members} readers.",
        expected_output="3 bullet points",
        agent=host,
    )
    result = Crew(
        agents=[librarian, host],
        tasks=[pick, prepare],
        process=Process.sequential,
    ).kickoff(inputs={"genre": genre, "members": 7})
    print(result)


if __name__ == "__main__":
    main()
