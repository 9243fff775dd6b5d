from crewai import Crew, Process

from agent import researcher
from task import report_task, search_task

research_crew = Crew(
    agents=[researcher],
    tasks=[search_task, report_task],
    process=Process.sequential,
    cache=True,
    max_rpm=100,
    share_crew=False,
)
