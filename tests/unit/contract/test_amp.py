"""A kickoff taken apart and a status put together."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.contract import amp
from crewcast.contract import kickoff as kickoffs
from crewcast.contract.kickoff import CrewInputs, parse_kickoff
from crewcast.contract.problem import Problem
from crewcast.contract.terms import Terms
from crewcast.core import run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.run import RunState

NOW = 1_750_000_000_000_000
NAMES = ["audience", "topic"]
CREW = CrewInputs(NAMES, NAMES)
INPUTS = {"topic": "tea", "audience": "all"}


def nowhere(*_):
    raise AssertionError("there is nothing to seal")


def parse(body, crew=CREW, check=lambda target: None):
    return parse_kickoff(body if isinstance(body, bytes) else json.dumps(body).encode(), crew, check)


def refused(body, crew=CREW, check=lambda target: None) -> Problem:
    with pytest.raises(Problem) as caught:
        parse(body, crew, check)
    problem = caught.value
    assert set(problem.body) >= {"error", "message", "detail", "details"}
    assert isinstance(problem.body["detail"], str)
    assert isinstance(problem.body["details"], dict)
    return problem


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b'{"a": NaN}', b"\xff", b'"text"', b"[]", b"null", b"1"]
)
def test_what_is_not_a_json_object_is_400(body):
    assert refused(body).status == 400


@given(st.binary(max_size=200))
def test_no_body_breaks_the_parser(body):
    try:
        parse(body)
    except Problem as problem:
        assert problem.status in (400, 422)


@pytest.mark.parametrize("body", [{}, {"inputs": None}, {"topic": "tea"}])
def test_missing_inputs_name_what_the_crew_needs(body):
    problem = refused(body)
    assert problem.status == 422
    assert problem.body["error"] == "Validation Error"
    assert problem.body["details"] == {"missing_inputs": ["audience", "topic"]}


def test_a_lacking_input_is_named():
    problem = refused({"inputs": {"topic": "tea"}})
    assert problem.body["details"] == {"missing_inputs": ["audience"]}
    assert "audience" in problem.body["detail"]


@pytest.mark.parametrize("inputs", [[], "topic", 1, False])
def test_inputs_must_be_an_object(inputs):
    assert refused({"inputs": inputs}).body["details"] == {"field": "inputs"}


def test_while_crewai_loads_nothing_is_known_to_be_missing():
    assert parse({"inputs": {}}, crew=None).inputs == {}


def test_a_crew_that_makes_inputs_itself_gets_a_warning():
    found = parse({"inputs": {"topic": "tea"}}, CrewInputs(NAMES, NAMES, derives=True))
    assert found.warnings == ["the crew's @before_kickoff is expected to make: audience"]


@pytest.mark.parametrize("name", kickoffs.URL_FIELDS)
@pytest.mark.parametrize(
    "value",
    ["", "hooks.example.com", "/path", "ftp://a.example/", "https://", "https://user:pw@a.example/", "https://a b/",
     "https://a.example:99999/", 7, ["https://a.example"], "https://a.example/" + "x" * 3000],
)  # fmt: skip
def test_urls_that_are_not_absolute_http_are_named(name, value):
    problem = refused({"inputs": INPUTS, name: value})
    assert problem.status == 422
    assert problem.body["details"] == {"field": name}
    assert problem.body["message"].startswith(name)


def test_what_egress_forbids_is_refused_with_its_reason():
    problem = refused(
        {"inputs": INPUTS, "stepWebhookUrl": "http://10.0.0.1/x"}, check=lambda target: f"is at {target.host}"
    )
    assert problem.body["message"] == "stepWebhookUrl is at 10.0.0.1"


def test_explicit_null_urls_are_no_urls():
    found = parse({"inputs": INPUTS, "taskWebhookUrl": None, "stepWebhookUrl": None, "crewWebhookUrl": None})
    assert (found.lanes, found.warnings) == ([], [])


def test_one_url_for_several_channels_is_one_lane():
    body = {
        "inputs": INPUTS,
        "taskWebhookUrl": "https://a.example/hook",
        "stepWebhookUrl": "https://a.example/steps",
        "crewWebhookUrl": "https://a.example/hook",
    }
    lanes = kickoffs.new_lanes("run", parse(body), nowhere)
    assert [(lane.number, lane.url, lane.channels) for lane in lanes] == [
        (1, "https://a.example/hook", Channel.TASK | Channel.CREW),
        (2, "https://a.example/steps", Channel.STEP),
    ]
    assert {lane.origin for lane in lanes} == {"https://a.example"}


@pytest.mark.parametrize("name", kickoffs.URL_FIELDS)
def test_urls_under_inputs_get_a_did_you_mean(name):
    problem = refused({"inputs": INPUTS | {name: "https://a.example"}})
    assert problem.status == 422
    assert "did you mean" in problem.body["message"]
    assert problem.body["details"] == {"misplaced": [name]}


def test_a_crew_may_really_have_an_input_of_that_name():
    assert parse({"inputs": {"taskWebhookUrl": "x"}}, CrewInputs(["taskWebhookUrl"], [])).inputs


def test_unknown_fields_come_back_as_warnings():
    found = parse({"inputs": INPUTS, "taskWebHookUrl": "https://a.example", "zzz": 1})
    assert len(found.warnings) == 2
    assert "did you mean 'taskWebhookUrl'?" in found.warnings[0]
    assert "'zzz' is not a field" in found.warnings[1]


@pytest.mark.parametrize("name", kickoffs.KEPT_FIELDS)
def test_what_is_not_served_yet_is_kept_and_said(name):
    found = parse({"inputs": INPUTS, name: {"url": "https://a.example"}})
    assert found.terms == Terms(**{name: {"url": "https://a.example"}})
    assert found.warnings == [f"{name!r} was stored and is not served yet"]


# --- authentication ---------------------------------------------------------------------------

BEARER = {"strategy": "bearer", "token": "s3cret-token"}
BASIC = {"strategy": "basic", "username": "crew", "password": "s3cret-token"}
URLS = {
    "taskWebhookUrl": "https://a.example/t",
    "stepWebhookUrl": "https://b.example/s",
    "crewWebhookUrl": "https://a.example/t",
}


def authenticated(value, urls=URLS):
    found = parse({"inputs": INPUTS, **urls, "webhookAuthentication": value})
    return {link: auth.headers for link, auth in found.auth.items()}, found.warnings


def test_one_authentication_is_for_every_url():
    found, warnings = authenticated(BEARER)
    assert set(found) == set(URLS.values())
    assert set(found.values()) == {(("authorization", "Bearer s3cret-token"),)}
    assert warnings == []


def test_each_url_may_have_its_own_or_none():
    found, warnings = authenticated({"stepWebhookUrl": BASIC, "taskWebhookUrl": None})
    # RFC 7617: base64 of `crew:s3cret-token`.
    assert found == {"https://b.example/s": (("authorization", "Basic Y3JldzpzM2NyZXQtdG9rZW4="),)}
    assert warnings == []


def test_one_url_in_two_fields_has_one_authentication():
    both, _ = authenticated({"taskWebhookUrl": BEARER})
    assert set(both) == {"https://a.example/t"}
    assert authenticated({"taskWebhookUrl": BEARER, "crewWebhookUrl": BEARER})[0] == both
    problem = refused(
        {
            "inputs": INPUTS,
            **URLS,
            "webhookAuthentication": {"taskWebhookUrl": BEARER, "crewWebhookUrl": BASIC},
        }
    )
    assert problem.body["details"] == {"field": "webhookAuthentication.crewWebhookUrl"}


def test_an_authentication_for_a_url_that_is_not_there_is_told():
    found, warnings = authenticated({"stepWebhookUrl": BEARER}, {})
    assert found == {}
    assert warnings == ["'webhookAuthentication' has one for 'stepWebhookUrl', which is not given"]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("Bearer s3cret-token", ""),
        ([BEARER], ""),
        ({}, None),
        ({"strategy": "oauth", "token": "s3cret-token"}, ".strategy"),
        ({"strategy": "bearer", "token": "s3cret-token\r\nx: y"}, ".token"),
        ({"stepWebhookUrl": {"strategy": "bearer", "token": 7}}, ".stepWebhookUrl.token"),
        ({"stepWebhookUrl": BEARER, "stepWebHookUrl": BEARER}, ".strategy"),
        ({"strategy": "headers", "headers": {"Host": "s3cret-token"}}, ".headers"),
        ({"strategy": "headers", "headers": {"X-API-Key": "s3cret-token\n"}}, ".headers.X-API-Key"),
    ],
)
def test_what_cannot_be_sent_is_named_and_never_repeated(value, field):
    body = {"inputs": INPUTS, **URLS, "webhookAuthentication": value}
    if field is None:
        assert parse(body).auth == {}
        return
    problem = refused(body)
    assert problem.body["details"] == {"field": f"webhookAuthentication{field}"}
    assert problem.body["message"].startswith(f"webhookAuthentication{field} ")
    assert "s3cret" not in json.dumps(problem.body)


def test_lanes_have_it_sealed_for_their_run_and_url():
    sealed = []

    def seal(auth, run_id, link):
        sealed.append((auth.headers[0][1], run_id, link))
        return b"sealed for " + link.encode()

    kickoff = parse({"inputs": INPUTS, **URLS, "webhookAuthentication": {"taskWebhookUrl": BEARER}})
    lanes = kickoffs.new_lanes("run", kickoff, seal)
    assert [lane.auth for lane in lanes] == [b"sealed for https://a.example/t", None]
    assert sealed == [("Bearer s3cret-token", "run", "https://a.example/t")]
    assert "s3cret" not in repr(kickoff)


def test_inside_the_inputs_it_would_be_stored_and_reach_prompts():
    problem = refused({"inputs": INPUTS | {"webhookAuthentication": BEARER}})
    assert problem.body["details"] == {"misplaced": ["webhookAuthentication"]}


@pytest.mark.parametrize("listed", [False, True])
def test_what_is_kept_for_later_is_kept_without_its_authentication(listed):
    webhook = {"url": "https://a.example", "authentication": BEARER}
    found = parse({"inputs": INPUTS, "webhooks": [webhook, 7] if listed else webhook})
    kept = {"url": "https://a.example"}
    assert found.terms == Terms(webhooks=[kept, 7] if listed else kept)
    assert found.warnings == ["'webhooks' was stored without its authentication and is not served yet"]


# --- meta -------------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [[], "x", 1])
def test_meta_must_be_an_object(meta):
    assert refused({"inputs": INPUTS, "meta": meta}).body["details"] == {"field": "meta"}


def test_meta_has_a_limit_as_every_event_carries_it():
    assert refused({"inputs": INPUTS, "meta": {"x": "y" * 20_000}}).body["details"] == {"field": "meta"}


def test_values_that_are_not_plain_are_warned_about():
    found = parse({"inputs": INPUTS | {"topic": ["a"], "n": 3, "ok": True}})
    assert found.warnings == ["input 'topic' is not a plain value; CrewAI puts str() of it into prompts"]


def test_a_flows_inputs_are_fields_and_no_prompts():
    inputs = {"topic": ["a"], "tpoic": None, "id": "x", "crewai_trigger_payload": {}}
    closed = CrewInputs(NAMES, [], only=True, prompts=False)
    assert parse({"inputs": inputs}, closed).warnings == [
        "input 'tpoic' is no field of the flow's state; did you mean 'topic'?"
    ]
    open_to_all = CrewInputs([], [], prompts=False)
    assert parse({"inputs": inputs}, open_to_all).warnings == []


def test_nothing_is_said_of_inputs_while_nobody_knows_what_takes_them():
    assert parse({"inputs": {"topic": ["a"]}}, None).warnings == []


RUN = runs.new_run("01980000-0000-7000-8000-000000000001", "brief", b"{}", NOW)


def test_a_queued_run_is_running_to_clients_that_know_three_words():
    body = amp.status(RUN, NOW, None, 3)
    assert (body["status"], body["state"]) == ("running", "PENDING")
    assert body["progress"] == {"completed_tasks": 0, "total_tasks": 3}
    assert body["kickoff_id"] == body["execution_id"] == RUN.id


def test_a_running_run_tells_its_task():
    run = runs.progress(runs.claim(RUN, "l", NOW, 60), total_tasks=3, completed_tasks=1, current_task="write")
    body = amp.status(run, NOW + 1_500_000, None, None)
    assert (body["status"], body["state"], body["current_task"]) == ("running", "STARTED", "write")
    assert body["execution_time"] == 1.5


def ended(state: RunState, payload: dict, **fields) -> dict:
    run = runs.end(runs.claim(RUN, "l", NOW, 60), state, NOW + 1, **fields)
    event = Event(run.id, 4, Channel.CREW, "crew", b'{"cut": true}', NOW, whole=json.dumps(payload).encode())
    return amp.status(run, NOW, event, None)


def test_a_completed_run_tells_the_whole_result():
    result = {"output": "brief", "tasks": []}
    body = ended(RunState.COMPLETED, {"status": "completed", "result": result, "execution_time": 2.5})
    assert (body["status"], body["state"], body["result"], body["execution_time"]) == (
        "completed",
        "SUCCESS",
        result,
        2.5,
    )


def test_a_failed_run_tells_error_and_traceback():
    body = ended(RunState.FAILED, {"status": "error", "error": "boom"}, error="boom", detail="Traceback ...")
    assert (body["status"], body["state"], body["error"]) == ("error", "FAILED", "boom")
    assert body["traceback"] == "Traceback ..."


def test_every_state_has_its_words():
    assert set(amp.STATES) == set(RunState)
    waiting = replace(RUN, state=RunState.WAITING)
    assert amp.status(waiting, NOW, None, None)["state"] == "PAUSED"


@pytest.mark.parametrize(("ordering", "ordered"), [("lane", True), (None, True), ("none", False)])
def test_the_order_of_each_url_can_be_lifted(ordering, ordered):
    body = {"inputs": INPUTS, "stepWebhookUrl": "http://a.example/", "taskWebhookUrl": "http://b.example/"}
    for asked in [body | {"ordering": ordering}, *([body] if ordering is None else [])]:
        kickoff = parse(asked)
        assert (kickoff.ordered, kickoff.warnings) == (ordered, [])
        assert [lane.ordered for lane in kickoffs.new_lanes("run", kickoff, nowhere)] == [ordered, ordered]


@pytest.mark.parametrize("ordering", ["run", "", "None", False, 0, [], {}, ["none"]])
def test_another_ordering_is_refused(ordering):
    problem = refused({"inputs": INPUTS, "ordering": ordering})
    assert (problem.status, problem.body["details"]) == (422, {"field": "ordering"})
