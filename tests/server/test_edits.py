"""`crewcast dev` follows edits of a project: inputs, tasks and errors are those of the files as they are now."""

from tests.support.mill import wait_until
from tests.support.server import ServerProcess

CREW = """
from crewai import Agent, Crew, Task

writer = Agent(role="Writer", goal="write", backstory="a writer", llm="gpt-4o")
crew = Crew(agents=[writer], tasks=[
    Task(name="write", description="Write about {topic}", expected_output="a line", agent=writer),
])
"""
EDITED = CREW.replace("{topic}", "{theme} for {reader}").replace('name="write"', 'name="draft"')


def test_an_edit_is_in_the_next_request_and_the_next_run(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    main = project / "main.py"
    main.write_text(CREW)
    with ServerProcess(project, tmp_path / "data", "--stub-llm", "--stub-delay", "0") as server:
        assert server.ask("GET", "/inputs", timeout=60).json == {"inputs": ["topic"]}
        kickoff_id = server.kickoff({"topic": "tea"})
        assert server.wait_for(kickoff_id)["state"] == "SUCCESS"

        main.write_text(EDITED)
        assert server.ask("GET", "/inputs").json == {"inputs": ["reader", "theme"]}
        missing = server.ask("POST", "/kickoff", {"inputs": {"topic": "tea"}})
        assert (missing.status, missing.json["details"]) == (422, {"missing_inputs": ["reader", "theme"]})
        status = server.wait_for(server.kickoff({"theme": "tea", "reader": "all"}))
        assert [task["task_id"] for task in status["result"]["tasks"]] == ["draft"]

        # A kickoff is the first to ask after this edit: it is checked against the edit, too.
        main.write_text(CREW)
        assert server.ask("POST", "/kickoff", {"inputs": {"theme": "tea", "reader": "all"}}).status == 422

        # Nobody asks: the terminal shows the error all the same, and what mends it.
        main.write_text(CREW.replace("crew = Crew(", "crew = Crew(("))
        server.wait_until_said("crew project cannot be loaded: SyntaxError")
        assert "main.py" in server.text.split("SyntaxError")[1]
        broken = server.ask("GET", "/inputs")
        assert (broken.status, broken.json["error"]) == (500, "Project Not Loadable")
        main.write_text(CREW)
        wait_until(lambda: server.text.count("crew project is ready; inputs: topic; tasks: write") == 3)
        assert server.ask("GET", "/inputs").json == {"inputs": ["topic"]}

        # The project becomes another kind of project.
        (project / "crew.jsonc").write_text("{}")
        (project / "pyproject.toml").write_text('[tool.crewai]\ntype = "crew"\ndefinition = "crew.jsonc"\n')
        assert server.ask("GET", "/inputs").status == 500
        assert server.ask("GET", "/crews").json["crews"][0]["kind"] == "json"


def test_a_server_in_production_follows_no_edits(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "main.py").write_text(CREW)
    with ServerProcess(project, tmp_path / "data", command="serve") as server:
        assert server.ask("GET", "/inputs", timeout=60).json == {"inputs": ["topic"]}
        (project / "main.py").write_text(EDITED)
        assert server.ask("GET", "/inputs").json == {"inputs": ["topic"]}
