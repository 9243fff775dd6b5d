"""CrewAI's own client of AMP runs a crew through the server, unmodified."""

import pytest
from pydantic import Field

from tests.support.server import CLASSIC, TOKEN, ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    with ServerProcess(CLASSIC, data, "--stub-llm", "--stub-delay", "0") as server:
        yield server


@pytest.mark.parametrize("slash", ["", "/"])
def test_invoke_crewai_automation_tool_returns_the_result(server, monkeypatch, slash):
    monkeypatch.setenv("CREWAI_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("CREWAI_TRACING_ENABLED", "false")
    from crewai_tools import InvokeCrewAIAutomationTool

    tool = InvokeCrewAIAutomationTool(
        crew_api_url=server.url + slash,
        crew_bearer_token=TOKEN,
        crew_name="Market brief",
        crew_description="Writes a market brief",
        max_polling_time=60,
        crew_inputs={"topic": Field(description="what about"), "audience": Field(description="for whom")},
    )
    answer = tool.run(topic="oolong tea", audience="cafe owners")
    # The text of the result in newer releases, the result itself in older ones.
    assert "oolong tea" in str(answer)
    assert "brief_task" in str(answer)
