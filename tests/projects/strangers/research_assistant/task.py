from crewai import Task

from agent import researcher

search_task = Task(
    description="Search papers on {topic}.",
    expected_output="A list of papers",
    agent=researcher,
)

report_task = Task(
    description="Write a report on {topic}.",
    expected_output="A report of one paragraph",
    agent=researcher,
    output_file="reports/report.md",
)
