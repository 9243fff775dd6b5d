from crewai import Agent, LLM

from tools import paper_search

llm = LLM(model="gemini/gemini-2.0-flash", temperature=0.2)

researcher = Agent(
    role="Senior Researcher",
    goal="Find the best papers on {topic}",
    backstory="You have an eye for what will matter in ten years.",
    tools=[paper_search],
    llm=llm,
    max_iter=5,
)
