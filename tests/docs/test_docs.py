"""The docs against the code: what is public is listed once, there, and said the same here."""

import argparse
import ast
import json
import re
import shlex
from typing import Any

import pytest

from crewcast import webhooks
from crewcast.api import amp as amp_routes
from crewcast.api import secrets as secret_routes
from crewcast.api.app import Context, create_app
from crewcast.api.auth import Tokens
from crewcast.api.deliveries import LANES_AT_ONCE
from crewcast.api.query import PAGE
from crewcast.cli.main import parser
from crewcast.clock import RealClock
from crewcast.config import SETTINGS, load, shown_default
from crewcast.contract import amp, authentication, openapi, redelivery, resume, terms
from crewcast.contract import kickoff as kickoffs
from crewcast.contract.problem import Problem
from crewcast.core import url
from crewcast.core.backoff import HOUR, JITTER, MINUTE, SECOND, RetryPolicy
from crewcast.core.errors import UsageError
from crewcast.core.generation import MOST_AT_ONCE
from crewcast.core.review import Default
from crewcast.dispatch.dispatcher import DispatchLimits
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.limits import SenderLimits
from crewcast.dispatch.response import EXCERPT
from crewcast.store.postgres.connection import OLDEST as OLDEST_POSTGRES
from crewcast.store.sqlite.connection import OLDEST_SQLITE
from crewcast.webhooks import dedupe
from tests.docs.pages import DOCS, FENCE, PAGES, PYPROJECT, REPOSITORY, SOURCE, blocks, prose, section, table


def test_the_pages_are_there():
    assert set(PAGES) >= {
        "quickstart.md",
        "api.md",
        "webhooks.md",
        "configuration.md",
        "operating.md",
        "projects.md",
    }


# --- settings ---------------------------------------------------------------------------------


def test_the_settings_table_is_the_list_of_settings():
    told = [row[:5] for row in table(PAGES["configuration.md"], "setting")]
    assert told == [
        [
            setting.name,
            setting.flag,
            setting.variable,
            shown_default(setting).lower(),
            ", ".join(setting.commands),
        ]
        for setting in SETTINGS
    ]


def test_every_setting_is_explained():
    assert all(len(row[5]) > 20 for row in table(PAGES["configuration.md"], "setting"))


def test_the_example_of_a_settings_file_is_valid(tmp_path):
    [text, _] = blocks(PAGES["configuration.md"], "toml")
    file = tmp_path / "crewcast.toml"
    file.write_text(text)
    settings = load("serve", {"config": str(file)}, {})
    assert settings.port == 8080
    assert settings.retry_schedule == (5, 60, 600, 3600)
    file.write_text("port = 8080\nprot = 1\n")
    with pytest.raises(UsageError):
        load("serve", {"config": str(file)}, {})


def test_the_settings_of_one_crew_are_those_that_may_differ(tmp_path):
    _, text = blocks(PAGES["configuration.md"], "toml")
    file = tmp_path / "crewcast.toml"
    file.write_text("max_runs = 8\n" + text)
    settings = load("serve", {"config": str(file)}, {})
    assert (settings.max_runs, settings.of_crew("billing").max_runs) == (8, 2)
    [told] = re.findall(r"\*\*Of one crew\.\*\* (.*?) may be different", prose("configuration.md"))
    assert re.findall(r"`(\w+)`", told) == [setting.name for setting in SETTINGS if setting.per_crew]


def test_variables_are_named_as_they_are_read():
    known = {setting.variable for setting in SETTINGS} | {"CREWCAST_URL"}
    named = {name for text in PAGES.values() for name in re.findall(r"\bCREWCAST_[A-Z_]*[A-Z]\b", text)}
    assert named == known


# --- the API ----------------------------------------------------------------------------------


def nowhere(*_: object) -> None:
    raise AssertionError


def routes() -> set[str]:
    nothing: Any = nowhere
    context = Context(nothing, RealClock(), Tokens("t"), {}, *[nothing] * 7)
    found = create_app(context)._app.routes  # type: ignore[attr-defined]
    return {f"{method} {route.path}" for route in found for method in route.methods - {"HEAD"}}


def test_the_routes_are_those_of_the_application():
    headings = re.findall(r"^### `(.*)`$", PAGES["api.md"], re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == routes()


def test_the_fields_of_a_kickoff_are_those_that_are_known():
    rows = dict(table(section("api.md", "`POST /kickoff`"), "field"))
    assert set(rows) == kickoffs.KNOWN_FIELDS
    assert {name for name, text in rows.items() if "not served yet" in text} == set(kickoffs.KEPT_FIELDS)


def test_the_fields_of_a_redelivery_are_those_that_are_known():
    rows = table(section("api.md", "`POST /api/v1/redeliveries`"), "redelivery")
    assert {row[0] for row in rows} == redelivery.OF_RUN | redelivery.OF_ORIGIN
    described = openapi.document()["components"]["schemas"]["Redelivery"]["oneOf"]
    assert [set(one["properties"]) for one in described] == [redelivery.OF_RUN, redelivery.OF_ORIGIN]


def test_the_examples_of_a_redelivery_can_be_asked_for():
    [block] = blocks(section("api.md", "`POST /api/v1/redeliveries`"), "sh")
    bodies = re.findall(r"-d '(.*)'", block)
    found = [redelivery.parse(body.encode(), nowhere) for body in bodies]
    assert [type(one) for one in found] == [redelivery.OfRun, redelivery.OfOrigin]


def test_the_example_of_a_kickoff_can_be_started():
    [block] = blocks(section("api.md", "`POST /kickoff`"), "sh")
    body = re.search(r"-d '(.*)'", block, re.DOTALL)
    assert body is not None
    crew = kickoffs.CrewInputs(["audience", "topic"], ["audience", "topic"])
    policy = EgressPolicy(allow_http=True, allow_loopback=True)
    kickoff = kickoffs.parse_kickoff(body[1].encode(), crew, policy.check_url)
    assert (len(kickoff.lanes), kickoff.warnings) == (3, [])


def test_a_decision_is_told_with_its_fields_and_can_be_taken():
    rows = table(section("api.md", "`POST /resume`"), "decision")
    told = {
        name
        for row in rows
        for name in [*row[0].split(", "), *re.findall(r"\b[a-z]+(?:_id|I[dD]|Feedback|Approve)\b", row[1])]
    }
    described = openapi.document()["components"]["schemas"]["Resume"]["properties"]
    assert told == set(described)
    examples = [blocks(section("api.md", "`POST /resume`"), "json")[0]]
    examples += re.findall(r"/resume .*? -d '(.*?)'", PAGES["human-in-the-loop.md"], re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        asked = resume.parse_resume(example.encode(), nowhere)
        assert (asked.task_id, asked.approve, asked.warnings) == ("notice_task", True, [])


def test_how_a_run_waits_is_told_with_its_fields_and_can_be_started():
    page = section("human-in-the-loop.md", "Deadlines and reminders")
    assert [row[0] for row in table(page, "`review`")] == list(terms.ReviewTerms.__struct_fields__)
    [example] = blocks(page, "json")
    crew = kickoffs.CrewInputs(["fault", "product"], ["fault", "product"])
    kickoff = kickoffs.parse_kickoff(example.encode(), crew, EgressPolicy().check_url)
    assert kickoff.warnings == []
    assert kickoff.terms.review == terms.ReviewTerms(24 * HOUR, Default.REJECT, 4 * HOUR)
    [limits] = re.findall(r"`(\"limits\": .*?})`", PAGES["human-in-the-loop.md"])
    found = terms.parse_limits(json.loads("{" + limits + "}")["limits"])
    assert None not in (found.tokens, found.llm_calls, found.tool_calls, found.seconds)


def authentications() -> list[Any]:
    return [json.loads(block) for block in blocks(section("api.md", "Webhook authentication"), "json")]


def test_the_examples_of_an_authentication_can_be_sent():
    found = [authentication.parse(example) for example in authentications()]
    assert [name for one in found for name, _ in one.headers] == [
        "authorization",
        "authorization",
        "x-api-key",
    ]


def test_the_headers_of_an_authentication_are_those_that_may_be_set():
    text = section("api.md", "Webhook authentication").partition("each one of")[2]
    assert set(re.findall(r"`([\w-]+)`", text)) == authentication.HEADER_NAMES


def test_the_examples_of_secrets_are_as_the_documents_have_them():
    [rotated] = blocks(section("api.md", "`POST /api/v1/secrets/rotate`"), "json")
    answer = openapi.document()["paths"]["/api/v1/secrets/rotate"]["post"]["responses"]["200"]
    assert json.loads(rotated) == answer["content"]["application/json"]["example"]
    [keys] = blocks(section("webhooks.md", "With a public key"), "json")
    answer = openapi.document()["paths"]["/.well-known/webhook-keys"]["get"]["responses"]["200"]
    assert json.loads(keys) == answer["content"]["application/json"]["example"]


def test_the_table_of_states_is_the_code_s():
    told = {row[0]: (row[1], row[2]) for row in table(PAGES["api.md"], "run")}
    assert told == {state.value: words for state, words in amp.STATES.items()}


def problems() -> set[tuple[str, str]]:
    """(status, error) of every Problem that is written down in the code, and those of the framework."""
    found = {("404", "Not Found"), ("405", "Method Not Allowed")}
    for file in [*SOURCE.glob("api/*.py"), *SOURCE.glob("contract/*.py"), SOURCE / "crew_views.py"]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                status, error = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(error, ast.Constant):
                    found.add((str(status.value), str(error.value)))
    return found


def test_the_table_of_errors_has_every_error():
    rows = table(section("api.md", "Errors"), "status")
    told = {(row[0], row[1]) for row in rows}
    assert len(told) == len(rows)
    assert told - {("200", ""), ("202", ""), ("204", ""), ("409", "")} == problems()


def test_the_openapi_document_has_the_same_errors_and_kinds_of_projects():
    document = openapi.document()
    told = {row[0] for row in table(section("api.md", "Errors"), "status")}
    described = {
        status
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
        for status in operation["responses"]
    }
    assert told == described | {"405"}  # of a method that no operation is there for
    kinds = [row[0] for row in table(section("projects.md", "Served"), "kind")]
    assert document["components"]["schemas"]["Crew"]["properties"]["kind"]["enum"] == [*kinds, "unknown"]


def test_the_example_of_an_error_is_what_is_answered():
    [example] = blocks(section("api.md", "Errors"), "json")
    with pytest.raises(Problem) as caught:
        kickoffs.parse_kickoff(
            b'{"inputs": {"topic": "x"}}',
            kickoffs.CrewInputs(["audience", "topic"], ["audience", "topic"]),
            nowhere,
        )
    assert json.loads(example) == caught.value.body


# --- numbers ----------------------------------------------------------------------------------

COUNTS = {4: "four", 5: "five", 6: "six"}
LIMITS, POLICY, DISPATCH = SenderLimits(), RetryPolicy(), DispatchLimits()
FACTS = [
    ("api.md", f"1 to {amp_routes.MAX_KEY_LENGTH} characters"),
    ("api.md", f"up to {kickoffs.MAX_META_BYTES // 1024} KiB"),
    ("api.md", f"(default {PAGE}, at most 1000)"),
    ("api.md", f"an answer has at most {LANES_AT_ONCE} lanes"),
    ("webhooks.md", f"more than {webhooks.TOLERANCE} s away"),
    (
        "webhooks.md",
        f"the last {dedupe.SIZE:,} ids in its process; `SQLiteDeduper` all of {dedupe.KEEP / dedupe.DAY:g} days",
    ),
    (
        "api.md",
        f"at most {authentication.MAX_LENGTH} characters; at most {authentication.MAX_HEADERS} headers",
    ),
    (
        "api.md",
        f"(default {secret_routes.OVERLAP // SECOND}, at most {secret_routes.LONGEST_OVERLAP // SECOND})",
    ),
    ("api.md", f"so {COUNTS[MOST_AT_ONCE]} at once are the most"),
    ("operating.md", f"At most {COUNTS[MOST_AT_ONCE]} secrets of an origin are in force at once"),
    ("webhooks.md", f"Waits vary by {JITTER:.0%}".replace("%", " %")),
    ("webhooks.md", f"is honoured, up to {POLICY.max_retry_after // (60 * MINUTE)} hour"),
    ("webhooks.md", f"its first {EXCERPT} characters"),
    ("webhooks.md", f"URLs up to {url.MAX_LENGTH} characters"),
    ("webhooks.md", f"the head of the answer is over {LIMITS.max_head // 1024} KiB"),
    ("webhooks.md", f"looking up the name took over {LIMITS.resolve:g} s"),
    ("webhooks.md", f"no connection within {LIMITS.connect:g} s"),
    ("webhooks.md", f"no TLS within {LIMITS.tls:g} s"),
    ("webhooks.md", f"you did not read the request for {LIMITS.write:g} s"),
    ("operating.md", f"{DISPATCH.per_origin} requests at once per origin, {DISPATCH.lanes} lanes"),
    ("operating.md", f"SQLite {OLDEST_SQLITE[0]}.{OLDEST_SQLITE[1]} or newer"),
    ("operating.md", f"PostgreSQL {OLDEST_POSTGRES // 10000} or newer"),
    (
        "projects.md",
        f"`crewai{PYPROJECT['project']['optional-dependencies']['crewai'][0].removeprefix('crewai')}`",
    ),
]


@pytest.mark.parametrize(("page", "said"), FACTS)
def test_numbers_are_those_of_the_code(page, said):
    assert said in prose(page)


def test_versions_are_those_that_are_declared():
    found = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PYPROJECT["project"]["requires-python"])
    assert found is not None
    low, high = found.groups()
    said = f"Python 3.{low} to 3.{int(high) - 1}"
    assert said in prose("projects.md")
    assert said in prose("quickstart.md")
    development = map(str, PYPROJECT["dependency-groups"]["dev"])
    [pin] = [line for line in development if line.startswith("crewai==")]
    assert f"CrewAI {pin.removeprefix('crewai==')} on Python" in prose("projects.md")
    for extra in re.findall(r"`crewcast\[([\w,]+)\]`", PAGES["quickstart.md"] + PAGES["projects.md"]):
        assert set(extra.split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])


def test_what_needs_a_later_crewai_is_what_the_tests_skip_before():
    marks = {
        (mark.args[0].value, str(mark.args[1].value))
        for file in (REPOSITORY / "tests/crewai").glob("test_*.py")
        for mark in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(mark, ast.Call)
        and getattr(mark.func, "id", "") == "since"
        and all(isinstance(argument, ast.Constant) for argument in mark.args)
    }
    words = {
        "PlanningConfig": "agents that plan and observe",
        "or_": "loops through a method that listens to one of several",
        "JSON crews": "JSON-first crews",
        "declarative flows": "declarative flows",
        "from its state": "declarative flows that put the state into an agent's input",
    }
    rows = table(section("projects.md", "Environments"), "needs")
    told = {(release, what) for needs, release in rows for word, what in words.items() if word in needs}
    assert told == {(release, what) for release, what in marks if what in words.values()}
    assert len(told) == len(words)


# --- the command line -------------------------------------------------------------------------


def names(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def commands() -> set[str]:
    found = set()
    for name, command in names(parser()).items():
        inner = names(command)
        found |= {f"{name} {action}" for action in inner} if inner else {name}
    return found


def mentioned() -> set[str]:
    """`crewcast WORD` wherever it stands in code, with the second word of a command that has one."""
    found = set()
    for text in PAGES.values():
        code = re.findall(r"`([^`\n]+)`", FENCE.sub("", text)) + blocks(text, "sh") + blocks(text, "ini")
        for first, second in re.findall(
            r"(?:^|[\s/(])crewcast ([a-z]+)(?: +([a-z]+))?", "\n".join(code), re.MULTILINE
        ):
            found.add(f"{first} {second}" if first == "secret" else first)
    return found


def test_the_commands_are_those_of_the_parser():
    assert mentioned() == commands()


def command_lines() -> list[str]:
    text = "\n".join(
        block for page in PAGES.values() for kind in ("sh", "ini") for block in blocks(page, kind)
    )
    return [line.rstrip(")") for line in re.findall(r"(?:^|[/(])crewcast ([^\n]+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_can_be_parsed(line):
    parser().parse_args(shlex.split(line))


def test_there_are_command_lines():
    assert len(command_lines()) >= 6


def test_flags_in_the_text_exist():
    flags = {flag for command in names(parser()).values() for flag in command._option_string_actions}
    actions = names(names(parser())["secret"]).values()
    flags |= {flag for action in actions for flag in action._option_string_actions}
    for page, text in PAGES.items():
        spans = "\n".join(re.findall(r"`([^`\n]+)`", FENCE.sub("", text)))
        unknown = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", spans)) - flags
        assert unknown - {"--classic"} == set(), page


# --- form -------------------------------------------------------------------------------------


def python_blocks() -> list[tuple[str, str]]:
    return [(page, block) for page, text in PAGES.items() for block in blocks(text, "python")]


@pytest.mark.parametrize(("page", "block"), python_blocks())
def test_python_compiles(page, block):
    compile(block, page, "exec")


def test_json_is_json():
    for text in PAGES.values():
        for block in blocks(text, "json"):
            json.loads(block)


def test_the_quickstart_subscriber_is_fifteen_lines():
    [subscriber] = blocks(PAGES["quickstart.md"], "python")
    assert len([line for line in subscriber.split("\n") if line.strip()]) == 15


def anchors(text: str) -> set[str]:
    """As GitHub makes them: lower case, spaces to dashes, all other punctuation gone."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", PAGES[page]))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (DOCS / path).resolve() if path else DOCS / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_the_tests_that_show_a_promise_exist():
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", PAGES["delivery.md"])
    assert len(named) > 25
    for file, test in named:
        source = (REPOSITORY / file).read_text("utf-8")
        assert not test or re.search(rf"^(?:async )?def {test}\(", source, re.MULTILINE), (file, test)
