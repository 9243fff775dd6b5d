"""Raw CrewAI events in the words of the document, one rule after the other."""

import pytest

from crewcast.crew.mapping import Mapping, thought_of, tool_input

KICKOFF = "01980000-0000-7000-8000-000000000001"
AT = 1_750_000_000_000_000


def raw(kind: str, **fields) -> dict:
    return {"type": kind, "at": AT, "task_id": "research", "agent": "Researcher"} | fields


def steps(mapping: Mapping, event: dict) -> list[dict]:
    return [draft.payload["step"] for draft in mapping.drafts(event) if draft.type == "step"]


def payloads(mapping: Mapping, event: dict) -> list[tuple[str, dict]]:
    return [(draft.type, draft.payload) for draft in mapping.drafts(event)]


@pytest.mark.parametrize(
    ("response", "thought"),
    [
        ("Thought: I should look.\nAction: search\nAction Input: {}", "I should look."),
        ("Thought: I know it now.\nFinal Answer: 42", "I know it now."),
        ("I should look.\n\nAction: search", "I should look."),
        ("Action: search\nAction Input: {}", ""),
        ("Final Answer: 42", "42"),
        ("Just an answer with Action: inside a line", "Just an answer with Action: inside a line"),
        ("  thought: low case \n final answer: x", "low case"),
        ("", ""),
    ],
)
def test_thoughts(response, thought):
    assert thought_of(response) == thought
    found = steps(Mapping(KICKOFF), raw("llm_call_completed", response=response, call_type="llm_call"))
    assert found == ([{"type": "thought", "content": thought}] if thought else [])


def test_a_call_that_asks_for_tools_is_no_thought():
    assert steps(Mapping(KICKOFF), raw("llm_call_completed", response="x", call_type="tool_call")) == []


def test_react_acts_and_observes_in_words():
    mapping = Mapping(KICKOFF)
    started = raw("tool_usage_started", mode="react", tool="search", args='{"q": "tea"}')
    assert steps(mapping, started) == [
        {"type": "action", "content": "Use search", "tool": "search", "input": {"q": "tea"}},
        {"type": "tool_call", "tool": "search", "input": {"q": "tea"}},
    ]
    finished = raw("tool_usage_finished", mode="react", tool="search", args={"q": "tea"}, output="found")
    assert steps(mapping, finished) == [
        {"type": "tool_result", "tool": "search", "input": {"q": "tea"}, "output": "found"},
        {"type": "observation", "content": "found"},
    ]


def test_native_calls_are_a_call_and_a_result():
    mapping = Mapping(KICKOFF)
    assert steps(mapping, raw("tool_usage_started", mode="native", tool="add", args={"a": 1})) == [
        {"type": "tool_call", "tool": "add", "input": {"a": 1}}
    ]
    assert steps(
        mapping, raw("tool_usage_error", mode="native", tool="add", args={"a": 1}, error="no b")
    ) == [{"type": "tool_result", "tool": "add", "input": {"a": 1}, "output": "no b"}]


@pytest.mark.parametrize(
    "kind", ["tool_validate_input_error", "tool_selection_error", "tool_failure_detected"]
)
def test_a_call_that_never_started_is_told_with_its_result(kind):
    found = steps(Mapping(KICKOFF), raw(kind, mode="native", tool="nope", args={}, error="no such tool"))
    assert [step["type"] for step in found] == ["tool_call", "tool_result"]
    assert found[1]["output"] == "no such tool"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"q": 1}, {"q": 1}),
        ('{"q": 1}', {"q": 1}),
        ("tea", {"input": "tea"}),
        ("[1]", {"input": [1]}),
        ("[" * 100_000, {"input": "[" * 100_000}),
        (None, {}),
        (7, {"input": 7}),
    ],
)
def test_tool_input_is_always_an_object(arguments, found):
    assert tool_input(arguments) == found


def test_tasks_carry_meta_and_their_real_time():
    mapping = Mapping(KICKOFF, {"requestId": "r"})
    mapping.drafts(raw("llm_call_completed", response="hm", call_type="llm_call"))
    assert payloads(mapping, raw("task_completed", output="done", execution_time=1.25)) == [
        (
            "task.completed",
            {
                "kickoff_id": KICKOFF,
                "task_id": "research",
                "agent": "Researcher",
                "status": "completed",
                "output": "done",
                "execution_time": 1.25,
                "meta": {"requestId": "r"},
            },
        )
    ]


def test_a_failed_task_tells_its_error():
    mapping = Mapping(KICKOFF)
    mapping.drafts(raw("tool_usage_started", mode="native", tool="t", args={}))
    [(kind, payload)] = payloads(mapping, raw("task_failed", error="boom", execution_time=0.5))
    assert (kind, payload["status"], payload["output"]) == ("task.error", "error", "boom")


@pytest.mark.parametrize(
    "end", [{"type": "task_completed", "output": "42"}, {"type": "task_failed", "error": "42"}]
)
def test_every_task_has_at_least_one_step(end):
    mapping = Mapping(KICKOFF)
    kinds = [draft.type for draft in mapping.drafts(raw(end["type"]) | end)]
    assert kinds[0] == "step"
    assert "42" in Mapping(KICKOFF).drafts(raw(end["type"]) | end)[0].payload["step"]["content"]
    again = [draft.type for draft in mapping.drafts(raw(end["type"]) | end)]
    assert "step" not in again


@pytest.mark.parametrize("kind", ["task_started", "flow_started", "something_new"])
def test_what_has_no_place_in_the_document_is_left_out(kind):
    assert Mapping(KICKOFF).drafts(raw(kind)) == []


def test_a_plan_is_a_thought():
    assert steps(Mapping(KICKOFF), raw("agent_reasoning_completed", plan="1. look")) == [
        {"type": "thought", "content": "1. look"}
    ]


@pytest.mark.parametrize(
    ("response", "call_type", "who", "told"),
    [
        ("1. look", "llm_call", {}, False),
        ("Thought: 1. look\n", "llm_call", {}, False),
        ("1. look\n2. see", "llm_call", {}, True),
        ("1. look", "tool_call", {}, True),
        ("1. look", "llm_call", {"agent": "Writer"}, True),
        ("1. look", "llm_call", {"task_id": "write"}, True),
    ],
)
def test_a_plan_that_its_agent_has_just_said_is_told_once(response, call_type, who, told):
    mapping = Mapping(KICKOFF)
    mapping.drafts(raw("llm_call_completed", response=response, call_type=call_type, **who))
    assert bool(steps(mapping, raw("agent_reasoning_completed", plan="1. look"))) is told


def test_a_plan_of_which_a_part_was_told_is_told_whole():
    mapping, plan = Mapping(KICKOFF), "1. look\nAction: see"
    assert steps(mapping, raw("llm_call_completed", response=plan, call_type="llm_call")) == [
        {"type": "thought", "content": "1. look"}
    ]
    assert steps(mapping, raw("agent_reasoning_completed", plan=plan)) == [
        {"type": "thought", "content": plan}
    ]


def test_a_react_step_whose_tool_never_ran_is_told_whole():
    acted = raw("agent_logs_execution", mode="react", tool="search", args='{"q": 1}', output="not again")
    found = [
        (step["type"], step.get("output", step.get("content"))) for step in steps(Mapping(KICKOFF), acted)
    ]
    assert found == [
        ("action", "Use search"),
        ("tool_call", None),
        ("tool_result", "not again"),
        ("observation", "not again"),
    ]


def test_a_task_that_waits_for_a_person_has_its_step_before_that_and_none_for_the_approval():
    mapping = Mapping(KICKOFF)
    asked = {"op": "paused", "at": AT, "task_id": "research", "agent": "Researcher", "output": "the answer"}
    [step] = [draft.payload["step"] for draft in mapping.paused(asked)]
    assert step == {"type": "thought", "content": "the answer"}
    assert mapping.paused(asked) == []
    assert steps(mapping, raw("task_completed", output="the answer")) == []


def test_a_thought_is_told_once_though_another_process_tells_the_rest():
    before, after = Mapping(KICKOFF), Mapping(KICKOFF)
    assert len(steps(before, raw("llm_call_completed", response="the answer", call_type="llm_call"))) == 1
    asked = {"op": "paused", "at": AT, "task_id": "research", "agent": "Researcher", "output": "the answer"}
    assert before.paused(asked) == []
    after.stepped("research")
    assert steps(after, raw("task_completed", output="the answer")) == []
    assert len(steps(after, raw("task_completed", task_id="letter", output="x"))) == 1


def test_a_method_that_waits_for_a_person_thinks_nothing():
    assert (
        Mapping(KICKOFF).paused({"op": "paused", "at": AT, "task_id": "decide", "agent": "", "output": "x"})
        == []
    )
