"""The docs against the code: what is public is listed once, there, and said the same here."""

import argparse
import ast
import json
import os
import re
import shlex
import time
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from standardwebhooks import Webhook

from crewcast import webhooks
from crewcast.api import amp as amp_routes
from crewcast.api import runs as run_routes
from crewcast.api.app import Context, create_app
from crewcast.api.auth import Tokens
from crewcast.cli.main import parser
from crewcast.clock import RealClock
from crewcast.config import SETTINGS, load, shown_default
from crewcast.contract import amp
from crewcast.contract.asyncapi import _ALWAYS_SENT, DELIVERY_HEADERS, payload_schema
from crewcast.core import outcome, signature, url
from crewcast.core.backoff import JITTER, MINUTE, SECOND, SHORT_SCHEDULE, RetryPolicy
from crewcast.core.errors import UsageError
from crewcast.dispatch.dispatcher import DispatchLimits
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.limits import SenderLimits
from crewcast.dispatch.response import EXCERPT
from crewcast.store.sqlite.connection import OLDEST_SQLITE

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
SOURCE = REPOSITORY / "src" / "crewcast"
PAGES = {file.name: file.read_text("utf-8") for file in sorted(DOCS.glob("*.md"))}
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(page: str, heading: str) -> str:
    """The text below a heading up to the next of its level or above, whatever `#` stands in code."""
    lines, level, found = PAGES[page].split("\n"), 0, []
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        mark = re.match(r"(#+) (.*)", line) if not fenced else None
        if level and mark and len(mark[1]) <= level:
            break
        if level:
            found.append(line)
        elif mark and mark[2] == heading:
            level = len(mark[1])
    assert level, f"{page} has no heading {heading!r}"
    return "\n".join(found)


def table(text: str, header: str) -> list[list[str]]:
    """The rows of the table with this first cell in its header, backticks removed."""
    lines = iter(text.split("\n"))
    for line in lines:
        if line.startswith(f"| {header} |"):
            assert set(next(lines)) <= set("|- ")
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip().replace("`", "") for cell in row.strip("|").split("|")])
            assert rows
            return rows
    raise AssertionError(f"no table that begins with {header!r}")


def blocks(text: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text) if found == language]


def prose(page: str) -> str:
    return " ".join(PAGES[page].split())


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
    [text] = blocks(PAGES["configuration.md"], "toml")
    file = tmp_path / "crewcast.toml"
    file.write_text(text)
    settings = load("serve", {"config": str(file)}, {})
    assert settings.port == 8080
    assert settings.retry_schedule == (5, 60, 600, 3600)
    file.write_text("port = 8080\nprot = 1\n")
    with pytest.raises(UsageError):
        load("serve", {"config": str(file)}, {})


def test_variables_are_named_as_they_are_read():
    known = {setting.variable for setting in SETTINGS} | {"CREWCAST_URL"}
    named = {name for text in PAGES.values() for name in re.findall(r"\bCREWCAST_[A-Z_]*[A-Z]\b", text)}
    assert named == known


# --- the API ----------------------------------------------------------------------------------


def nowhere(*_: object) -> None:
    raise AssertionError


def routes() -> set[str]:
    context = Context(None, RealClock(), Tokens("t"), {}, nowhere, os.urandom, nowhere)  # type: ignore[arg-type]
    found = create_app(context)._app.routes  # type: ignore[attr-defined]
    return {f"{method} {route.path}" for route in found for method in route.methods - {"HEAD"}}


def test_the_routes_are_those_of_the_application():
    headings = re.findall(r"^### `(.*)`$", PAGES["api.md"], re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == routes()


def test_the_fields_of_a_kickoff_are_those_that_are_known():
    rows = dict(table(section("api.md", "`POST /kickoff`"), "field"))
    assert set(rows) == amp.KNOWN_FIELDS
    assert {name for name, text in rows.items() if "not served yet" in text} == set(amp.KEPT_FIELDS)


def test_the_example_of_a_kickoff_can_be_started():
    [block] = blocks(section("api.md", "`POST /kickoff`"), "sh")
    body = re.search(r"-d '(.*)'", block, re.DOTALL)
    assert body is not None
    crew = amp.CrewInputs(["audience", "topic"])
    policy = EgressPolicy(allow_http=True, allow_loopback=True)
    kickoff = amp.parse_kickoff(body[1].encode(), crew, policy.check_url)
    assert (len(kickoff.lanes), kickoff.warnings) == (3, [])


def test_the_table_of_states_is_the_code_s():
    told = {row[0]: (row[1], row[2]) for row in table(PAGES["api.md"], "run")}
    assert told == {state.value: words for state, words in amp.STATES.items()}


def problems() -> set[tuple[str, str]]:
    """(status, error) of every Problem that is written down in the code, and those of the framework."""
    found = {("404", "Not Found"), ("405", "Method Not Allowed")}
    for file in [*SOURCE.glob("api/*.py"), SOURCE / "contract" / "amp.py", SOURCE / "server.py"]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                status, error = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(error, ast.Constant):
                    found.add((str(status.value), error.value))
    return found


def test_the_table_of_errors_has_every_error():
    rows = table(section("api.md", "Errors"), "status")
    told = {(row[0], row[1]) for row in rows}
    assert len(told) == len(rows)
    assert told - {("200", "")} == problems()


def test_the_example_of_an_error_is_what_is_answered():
    [example] = blocks(section("api.md", "Errors"), "json")
    with pytest.raises(amp.Problem) as caught:
        amp.parse_kickoff(b'{"inputs": {"topic": "x"}}', amp.CrewInputs(["audience", "topic"]), nowhere)  # type: ignore[arg-type]
    assert json.loads(example) == caught.value.body


# --- webhooks ---------------------------------------------------------------------------------

CHANNELS = {
    "Task events": "TaskCompletedPayload",
    "Step events": "StepEventPayload",
    "Crew events": "CrewCompletedPayload",
}


@pytest.mark.parametrize(("heading", "schema"), CHANNELS.items())
def test_example_payloads_are_valid(heading, schema):
    examples = blocks(section("webhooks.md", heading), "json")
    assert examples
    validator = Draft202012Validator(payload_schema(schema), format_checker=FormatChecker())
    for example in examples:
        payload = json.loads(example)
        validator.validate(payload)
        assert set(payload) <= set(payload_schema(schema)["properties"])
        assert "null" not in example


def test_the_event_in_the_log_is_valid_too():
    [example] = blocks(section("api.md", "`GET /api/v1/runs/{kickoff_id}/events`"), "json")
    [event] = json.loads(example)["events"]
    Draft202012Validator(payload_schema("StepEventPayload"), format_checker=FormatChecker()).validate(
        event["payload"]
    )


def test_the_headers_are_those_that_are_sent():
    rows = table(section("webhooks.md", "Headers"), "header")
    assert [row[0] for row in rows] == list(DELIVERY_HEADERS)
    assert [row[0] for row in rows if row[1] == "always"] == _ALWAYS_SENT


def test_the_attributes_of_a_delivery_are_named():
    text = section("webhooks.md", "Verify")
    missing = [name for name in webhooks.Delivery.__dataclass_fields__ if f"`{name}`" not in text]
    assert missing == []


def receivers() -> list[str]:
    found = blocks(section("webhooks.md", "Verify"), "python")
    assert len(found) == 3
    return found


@pytest.mark.parametrize("number", range(3))
def test_each_way_to_verify_takes_what_is_signed_and_nothing_else(number):
    space: dict = {}
    exec(compile(receivers()[number], "webhooks.md", "exec"), space)
    secret = signature.origin_secret(b"m" * 32, "https://hooks.example.com")
    body, now = b'{"kickoff_id":"k","n":"\xc3\xa9"}', int(time.time())

    def headers(at: int, key: bytes) -> dict[str, str]:
        return {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(at),
            "webhook-signature": signature.sign(key, "evt_1", at, body),
        }

    key = signature.key_of(secret)
    assert space["receive"](secret, headers(now, key), body) == 204
    assert space["receive"](secret, headers(now, b"x" * 32), body) == 401
    assert space["receive"](secret, headers(now - 1000, key), body) == 401
    assert space["receive"](secret, headers(now, key), body + b" ") == 401


def test_the_real_delivery_can_be_verified():
    [text] = [block for block in blocks(section("webhooks.md", "Verify"), "text") if "whsec_" in block]
    told = dict(line.split(maxsplit=1) for line in text.strip().split("\n"))
    secret, body = told.pop("secret"), told.pop("body")
    at = int(told["webhook-timestamp"])
    assert webhooks.verify(secret, told, body, now=at).id == told["webhook-id"]
    assert Webhook(secret).sign(told["webhook-id"], _utc(at), body) == told["webhook-signature"]


def _utc(at: int):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC)


def strings(node: ast.AST | None) -> list[str]:
    if isinstance(node, ast.IfExp):
        return strings(node.body) + strings(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def outcome_kinds() -> set[str]:
    """What the sender can give, read from its source: the first argument of what makes an outcome, and the phases."""
    kinds, phases = {"status:NNN"}, set()
    for file in SOURCE.glob("dispatch/*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                if name in ("Outcome", "NoConnection", "fail"):
                    kinds.update(strings(node.args[0]))
                elif name == "_within":
                    phases.update(strings(node.args[0]))
            if isinstance(node, ast.Assign):
                target = node.targets[0]
                if isinstance(target, ast.Attribute) and target.attr == "phase":
                    phases.update(filter(None, strings(node.value)))
                elif isinstance(target, ast.Name) and target.id == "kind":
                    kinds.update(strings(node.value))
    return kinds | {f"timeout:{phase}" for phase in phases}


def test_the_outcomes_are_those_that_the_sender_can_give():
    told = [row[0] for row in table(section("webhooks.md", "Outcomes"), "outcome")]
    assert len(told) == len(set(told))
    assert set(told) == outcome_kinds()


def test_what_an_answer_leads_to():
    rows = dict(table(section("webhooks.md", "Outcomes"), "you answer"))
    [settled] = [answer for answer in rows if answer.startswith("400")]
    assert {int(status) for status in settled.split(", ")} == outcome.SETTLED_REFUSALS
    waits = [str(wait // SECOND) for wait in SHORT_SCHEDULE]
    assert f"after {', '.join(waits[:-1])} and {waits[-1]} seconds" in rows[settled]
    assert len(waits) + 1 == 5
    assert "the fifth attempt is the last" in rows[settled]


def match_cases(file: Path, function: str) -> set[str]:
    [found] = [
        node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if getattr(node, "name", "") == function
    ]
    values = [node.value for node in ast.walk(found) if isinstance(node, ast.MatchValue)]
    return {text for value in values for text in strings(value)}


def test_the_mapping_names_each_event_that_is_mapped():
    told = [row[0] for row in table(section("webhooks.md", "What each CrewAI event becomes"), "CrewAI")]
    assert len(told) == len(set(told))
    assert set(told) == match_cases(SOURCE / "crew" / "mapping.py", "_drafts")


@pytest.mark.parametrize("column", ["dev", "serve"])
def test_the_urls_are_taken_and_refused_as_said(column):
    dev = column == "dev"
    policy = EgressPolicy(allow_http=dev, allow_loopback=dev)
    rows = table(section("webhooks.md", "Which URLs are allowed"), "URL")
    assert len(rows) > 8
    for text, *taken in rows:
        try:
            allowed = policy.check_url(url.parse(text)) is None
        except ValueError:
            allowed = False
        assert {"yes": True, "no": False}[taken[not dev]] is allowed, text


# --- numbers ----------------------------------------------------------------------------------

LIMITS, POLICY, DISPATCH = SenderLimits(), RetryPolicy(), DispatchLimits()
FACTS = [
    ("api.md", f"1 to {amp_routes.MAX_KEY_LENGTH} characters"),
    ("api.md", f"up to {amp.MAX_META_BYTES // 1024} KiB"),
    ("api.md", f"(default {run_routes.PAGE}, at most 1000)"),
    ("webhooks.md", f"more than {webhooks.TOLERANCE} s away"),
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
    (
        "projects.md",
        f"`crewai{PYPROJECT['project']['optional-dependencies']['crewai'][0].removeprefix('crewai')}`",
    ),
]


@pytest.mark.parametrize(("page", "said"), FACTS)
def test_numbers_are_those_of_the_code(page, said):
    assert said in prose(page)


def test_versions_are_those_that_are_declared():
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PYPROJECT["project"]["requires-python"]).groups()
    said = f"Python 3.{low} to 3.{int(high) - 1}"
    assert said in prose("projects.md")
    assert said in prose("quickstart.md")
    [pin] = [line for line in PYPROJECT["dependency-groups"]["dev"] if line.startswith("crewai==")]
    assert f"CrewAI {pin.removeprefix('crewai==')} on Python" in prose("projects.md")
    for extra in re.findall(r"`crewcast\[([\w,]+)\]`", PAGES["quickstart.md"] + PAGES["projects.md"]):
        assert set(extra.split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])


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
    [show] = names(names(parser())["secret"]).values()
    flags |= set(show._option_string_actions)
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
