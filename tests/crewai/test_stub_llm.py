"""CrewAI's own classes against the offline LLM, over real HTTP."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", CREWAI_DISABLE_VERSION_CHECK="true"
)

with warnings.catch_warnings():  # CrewAI's own imports warn
    warnings.simplefilter("ignore")
    from crewai import LLM, Agent, Crew, Process, Task
    from crewai.flow import Flow, listen, start
    from crewai.flow.human_feedback import human_feedback
    from crewai.llms.base_llm import BaseLLM
    from crewai.llms.providers.openai.completion import OpenAICompletion
    from crewai.rag.embeddings.factory import build_embedder
    from crewai.tools import tool
    from crewai.utilities.llm_utils import create_llm

    from crewcast.crew.child import stub

from tests.crewai.releases import has, since

# What CrewAI and its dependencies warn about while they run is not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore")

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def pointed(base_url, monkeypatch, tmp_path) -> str:
    """The process as a project finds it: pointed at the server, with no key of anyone's."""
    monkeypatch.setattr(LLM, "__new__", LLM.__new__)  # put back by monkeypatch, with the environment
    monkeypatch.setattr(OpenAICompletion, "_get_client_params", OpenAICompletion._get_client_params)
    for name in list(os.environ):
        if re.search(r"API_KEY|API_BASE|BASE_URL|MODEL|NO_PROXY", name, re.IGNORECASE):
            monkeypatch.delenv(name)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    for name in ("EMBEDDINGS_OPENAI_API_BASE", "EMBEDDINGS_OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    stub.point_at(base_url)
    return str(base_url)


@tool("count_letters")  # type: ignore[untyped-decorator]
def count_letters(word: str) -> str:
    """Counts the letters of a word."""
    return f"{word!r} has {len(word)} letters"


class Harbour(BaseModel):
    name: str
    berths: int
    tags: list[str]


def one_task(llm: Any, tools: Any = (), *, memory: bool = False, **settings: Any) -> Any:
    agent = Agent(role="Harbour Clerk", goal="Know every harbour", backstory="Keeps the books.", llm=llm)
    task = Task(
        description="Count the letters of a word that describes the harbour of Trieste.",
        expected_output="One sentence",
        agent=agent,
        tools=list(tools),
        **settings,
    )
    return Crew(agents=[agent], tasks=[task], memory=memory).kickoff()


def test_a_plain_call_and_a_stream_say_the_same(base_url):
    made = {"model": "openai/gpt-4o-mini", "base_url": base_url, "api_key": "sk-test"}
    plain = LLM(**made).call("Describe the harbour of Trieste.")
    assert "harbour" in plain
    assert LLM(**made, stream=True).call("Describe the harbour of Trieste.") == plain


def test_a_response_model_is_filled(base_url):
    llm = LLM(model="openai/gpt-4o-mini", base_url=base_url, api_key="sk-test")
    for stream in (False, True):
        llm.stream = stream
        made = llm.call("Describe the harbour of Trieste.", response_model=Harbour)
        made = made if isinstance(made, Harbour) else Harbour.model_validate_json(made)
        assert made.tags


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/o1"], ids=["native", "react"])
def test_an_agent_uses_its_tool_once_and_answers(pointed, model, stream):
    result = one_task(LLM(model=model, stream=stream), [count_letters])
    assert result.raw.count("count_letters tool reported") == 1
    assert " letters" in result.raw
    assert result.token_usage.successful_requests == 2
    assert result.token_usage.total_tokens > 0


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/o1"], ids=["native", "react"])
@pytest.mark.parametrize("tools", [(), (count_letters,)], ids=["no tools", "tools"])
def test_output_pydantic_and_output_json(pointed, model, tools):
    assert isinstance(one_task(model, tools, output_pydantic=Harbour).pydantic, Harbour)
    assert Harbour.model_validate(one_task(model, tools, output_json=Harbour).json_dict)


def test_a_guardrail_and_a_planned_crew_end(pointed):
    agent = Agent(role="Clerk", goal="Know harbours", backstory="Keeps the books.", llm="gpt-4o-mini")
    task = Task(
        description="Describe the harbour of Trieste.",
        expected_output="One sentence",
        agent=agent,
        guardrail="It must mention a harbour.",
    )
    crew = Crew(agents=[agent], tasks=[task], planning=True, planning_llm="anthropic/claude-sonnet-4-5")
    assert "harbour" in crew.kickoff().raw


@since("1.11.0", "agents that plan and observe")
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/o1"], ids=["native", "react"])
def test_an_agent_that_plans_and_observes_its_steps_ends(pointed, model):
    from crewai import PlanningConfig

    agent = Agent(
        role="Clerk",
        goal="Know harbours",
        backstory="Keeps the books.",
        llm=model,
        planning_config=PlanningConfig(reasoning_effort="high"),
    )
    task = Task(description="Describe the harbour of Trieste.", expected_output="One sentence", agent=agent)
    task.tools = [count_letters]
    result = Crew(agents=[agent], tasks=[task]).kickoff()
    assert "count_letters tool reported" in result.raw
    assert result.token_usage.successful_requests < 12


def test_memory_is_written_and_recalled(pointed):
    result = one_task("gemini/gemini-2.5-flash", memory=True)
    assert "harbour" in result.raw


@pytest.mark.parametrize(("said", "outcome"), [("I approve", "published"), ("this is wrong", "dropped")])
def test_human_feedback_in_a_flow_is_understood(pointed, monkeypatch, said, outcome):
    class Review(Flow):  # type: ignore[misc]
        @start()  # type: ignore[untyped-decorator]
        @human_feedback(message="ok?", emit=["approved", "rejected"], llm="anthropic/claude-sonnet-4-5")  # type: ignore[untyped-decorator]
        def draft(self) -> str:
            return "draft"

        @listen("approved")  # type: ignore[untyped-decorator]
        def publish(self) -> str:
            return "published"

        @listen("rejected")  # type: ignore[untyped-decorator]
        def drop(self) -> str:
            return "dropped"

    monkeypatch.setattr("builtins.input", lambda *_: said)
    assert Review().kickoff() == outcome


@since("1.15.2", "declarative flows that put the state into an agent's input")
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/o1"], ids=["native", "react"])
@pytest.mark.parametrize(
    ("topic", "last"), [("the tide", "write_followup"), ("nothing to do, it is done", "close")]
)
def test_an_agent_routes_a_declarative_flow(pointed, topic, last, model):
    router = {
        "role": "Follow-up router",
        "goal": "Return exactly one bare value: followup or done. Do not include explanation.",
        "backstory": "Skilled at routing notes.",
        "input": "A note on ${state.topic}",
        "llm": model,
    }
    flow = Flow.from_declaration(
        contents={
            "schema": "crewai.flow/v1",
            "name": "Routed",
            "state": {"type": "dict", "default": {"topic": topic}},
            "methods": {
                "note": {"start": True, "do": {"call": "expression", "expr": "state.topic"}},
                "route": {
                    "listen": "note",
                    "router": True,
                    "emit": ["followup", "done"],
                    "do": {"call": "agent", "with": router},
                },
                "write_followup": {
                    "listen": "followup",
                    "do": {"call": "expression", "expr": "'write_followup'"},
                },
                "close": {"listen": "done", "do": {"call": "expression", "expr": "'close'"}},
            },
        }
    )
    assert flow.kickoff() == last


@pytest.mark.parametrize("manager", ["gemini/gemini-2.5-pro", "openai/o1"], ids=["native", "react"])
def test_a_manager_delegates_once_and_answers(pointed, manager):
    agent = Agent(role="Harbour Clerk", goal="Know harbours", backstory="Keeps the books.", llm="gpt-4o-mini")
    task = Task(description="Describe the harbour of Trieste.", expected_output="One sentence")
    crew = Crew(agents=[agent], tasks=[task], process=Process.hierarchical, manager_llm=manager)
    assert "delegate_work_to_coworker tool reported" in crew.kickoff().raw


# What CrewAI would do with each of these: the name it would use, and whether it would call tools natively.
MODELS = [
    ("gpt-4o", "gpt-4o", True),
    ("openai/gpt-5.4-mini", "gpt-5.4-mini", True),
    ("openai/o1", "o1", False),
    ("o1-mini", "o1-mini", False),
    ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5", True),
    ("claude-3-5-haiku-latest", "claude-3-5-haiku-latest", True),
    ("gemini/gemini-2.5-flash", "gemini-2.5-flash", True),
    ("google/gemini-1.0-pro", "gemini-1.0-pro", False),
    ("gemini/gemma-3-27b-it", "gemma-3-27b-it", False),
    ("azure/gpt-4o", "gpt-4o", True),
    ("azure/mistral-large", "mistral-large", False),
    ("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", "anthropic.claude-3-5-sonnet-20240620-v1:0", True),
    ("snowflake/llama3.1-70b", "llama3.1-70b", False),
    ("ollama/llama3.2", "llama3.2", True),
    ("openrouter/openai/o1", "openai/o1", False),
    ("deepseek/deepseek-chat", "deepseek-chat", True),
    ("mistral/mistral-large-latest", "mistral/mistral-large-latest", True),
    ("perplexity/sonar", "perplexity/sonar", False),
    ("some-vendor/unheard-of", "some-vendor/unheard-of", False),
]


@pytest.mark.parametrize(("model", "name", "native"), MODELS, ids=[model for model, _, _ in MODELS])
def test_every_model_answers_without_key_or_sdk(pointed, model, name, native):
    llm = LLM(
        model=model, temperature=0.2, api_key="sk-of-a-provider", base_url="https://provider.example/v1"
    )
    if stub.split_model(model)[0] == "litellm" and not has("1.15.24"):
        native = True  # these releases carry no catalogue that would know better
    assert (llm.model, llm.supports_function_calling(), llm.temperature) == (name, native, 0.2)
    assert "harbour" in llm.call("Describe the harbour of Trieste.")


@pytest.mark.parametrize("name", ["o1", "o1-mini", "gpt-4o", "o3", "gpt-5.4"])
def test_the_rule_for_openais_tools_is_crewais_own(name):
    own = OpenAICompletion(model=name, api_key="sk-test").supports_function_calling()
    assert stub.calls_tools_natively("openai", name) == own


@since("1.12.0", "a client for servers that speak OpenAI's API")
@pytest.mark.parametrize("name", ["o1", "o1-mini", "gpt-4o", "o3", "gpt-5.4"])
def test_the_rule_for_the_tools_of_compatible_servers_is_crewais_own(name):
    from crewai.llms.providers.openai_compatible.completion import OpenAICompatibleCompletion

    own = OpenAICompatibleCompletion(model=name, provider="ollama").supports_function_calling()
    assert stub.calls_tools_natively("openai-compatible", name) == own


def test_every_way_to_name_a_model_leads_to_the_server(pointed, monkeypatch):
    monkeypatch.setenv("MODEL", "gemini/gemini-2.5-pro")
    made = [
        create_llm(None),
        create_llm({"model": "anthropic/claude-sonnet-4-5", "max_tokens": 100.5}),
        LLM(model="bedrock/x.y", aws_access_key_id="a", region_name="b", additional_params={"c": 1}),
        LLM("mistral/mistral-tiny", True),
        LLM(model="llama3", provider="ollama", stop=["\nStop"], logprobs=2, thinking={"type": "enabled"}),
        LLM(model="x", custom_openai=True, base_url="https://provider.example"),
        OpenAICompletion(model="gpt-4o", base_url="https://provider.example/v1", api_key="sk-own"),
        Agent(role="a", goal="b", backstory="c", llm="claude-3-opus", function_calling_llm="gpt-4o").function_calling_llm,
        Agent(role="a", goal="b", backstory="c").llm,
        LLM(model="claude-3-opus", stop_sequences=["\nEnd"]),
    ]  # fmt: skip
    for llm in made:
        assert "harbour" in llm.call("Describe the harbour of Trieste."), llm
    assert made[0].model == "gemini-2.5-pro"
    assert made[4].stop == ["\nStop"]
    assert made[-1].stop == ["\nEnd"]


@since("1.15.0", "agents whose model is a mapping")
def test_a_model_given_as_a_mapping_leads_to_the_server(pointed):
    llm = Agent(role="a", goal="b", backstory="c", llm={"model": "azure/gpt-4o"}).llm
    assert "harbour" in llm.call("Describe the harbour of Trieste.")


def test_a_second_server_takes_over_and_custom_llms_are_left_alone(pointed):
    class Own(BaseLLM):  # type: ignore[misc]
        def call(self, messages: Any, *args: Any, **settings: Any) -> str:
            return "my own answer"

    assert "my own answer" in one_task(Own(model="own")).raw
    stub.point_at("http://127.0.0.1:9/v1")
    assert LLM(model="gpt-4o").base_url == "http://127.0.0.1:9/v1"


def test_code_that_uses_openais_sdk_itself_reaches_the_server(pointed):
    import openai

    with openai.OpenAI() as client:
        said = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Praise tea."}]
        )
    assert "tea" in str(said.choices[0].message.content)


def test_the_default_embedder_gets_its_vectors_from_the_server(pointed):
    embed = build_embedder({"provider": "openai", "config": {}})
    bees, honey, taxes = embed(["bees in the city", "city bees and honey", "quarterly tax forms"])
    # text-embedding-3-large, and before that text-embedding-ada-002.
    assert len(bees) == (3072 if has("1.15.0") else 1536)
    assert bees @ honey > bees @ taxes


RUN = """
import json, sys
import crewai
from crewcast.crew.child.stub import point_at
point_at(sys.argv[1])
from market_brief.crew import MarketBrief
made = MarketBrief().crew()
tools = [agent.llm.supports_function_calling() for agent in made.agents]
out = made.kickoff(inputs={"topic": "urban beekeeping", "audience": "city planners"})
print("RESULT", json.dumps([tools, [task.raw for task in out.tasks_output]]))
"""


def test_the_classic_example_runs_from_end_to_end(base_url, tmp_path):
    project = tmp_path / "classic"
    shutil.copytree(REPOSITORY / "examples" / "classic", project)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "CREWAI_STORAGE_DIR": str(tmp_path / "storage"),
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "CREWAI_DISABLE_VERSION_CHECK": "true",
        "CREWAI_TESTING": "true",
        "PYTHONPATH": os.pathsep.join([str(project / "src"), str(REPOSITORY / "src")]),
    }
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN, base_url],
        cwd=project,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    tools, (research, sizing, brief) = json.loads(line.removeprefix("RESULT "))
    assert tools == [True, False, True]
    assert len({research, sizing, brief}) == 3
    assert all("urban beekeeping" in output for output in (research, sizing, brief))
    assert "search_market_notes tool reported" in research
    assert "240,000.00 per year" in sizing
    assert (project / "brief.md").read_text(encoding="utf-8") == brief
