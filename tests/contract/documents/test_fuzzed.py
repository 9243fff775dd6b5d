"""Every route, asked with what the OpenAPI document allows and with what it does not: schemathesis on a real server."""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation

from crewcast.contract import kickoff as kickoffs
from crewcast.contract import openapi
from tests.support.receiver import Receiver
from tests.support.server import REPOSITORY, TOKEN, ServerProcess

SCHEMA = schemathesis.openapi.from_dict(openapi.document(), config=SchemathesisConfig(seed=1))
# Each request has the token; that routes want it is a check of its own.
SCHEMA.config.generation.update(with_security_parameters=False)
ROUTES = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# A 422 for valid JSON: which hosts may be called, and what went before, no schema can say.
CREW = "odd-jobs"
# No run waits for a person here; test_answers.py has some that do.
NEVER_200 = {"POST /resume", "POST /crews/{name}/resume", "GET /reviews/{token}", "POST /reviews/{token}"}
# Nor has Python a year 0, which RFC 3339 has.
BEYOND_SCHEMAS = {*kickoffs.URL_FIELDS, "humanInputWebhook.url", "Idempotency-Key", "origin", "url", "since"}
# Nor what a duration amounts to, and that a default is for a deadline.
BEYOND_SCHEMAS |= {"review.timeout", "review.remind_every", "review.default"}
# Nor which tasks a run has finished.
BEYOND_SCHEMAS |= {"from_task"}


class Asked:
    """A server with a run that is done and one that never is: the only place is taken, so kickoffs start nothing."""

    def __init__(self, server: ServerProcess, runs: list[str]) -> None:
        self.server = server
        self.session = requests.Session()
        self.answers: dict[str, set[int]] = defaultdict(set)
        self._runs = itertools.cycle([None, *runs])
        self._crews = itertools.cycle([None, CREW, CREW, CREW])
        self._keys = itertools.count()
        self._deleted = itertools.cycle([None, runs[-1], "a new one"])
        self._stopped = itertools.cycle([None, "a new one"])
        self._again = itertools.cycle([None, runs[0]])

    def run_of(self, case):
        """What is deleted or stopped was queued for that, or may not be deleted; what is run again has ended."""
        if case.path.endswith("/rerun"):
            return next(self._again)
        if "/stop/" in case.path:
            run = next(self._stopped)
        elif case.method == "DELETE":
            run = next(self._deleted)
        else:
            return next(self._runs)
        return self.server.kickoff({}) if run == "a new one" else run

    def prepare(self, case):
        """Made-up names are never there, and a key is for one body: some names are real, and all valid keys new."""
        where = case.meta.components.get(ParameterLocation.PATH)
        if where is not None and where.mode.is_positive:
            real = {"name": next(self._crews), "kickoff_id": self.run_of(case)}
            case.path_parameters |= {
                name: value for name, value in real.items() if value and name in case.path_parameters
            }
        if 0 < len(case.headers.get("Idempotency-Key", "")) <= 255:
            case.headers["Idempotency-Key"] = f"key-{next(self._keys)}"


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Iterator[Asked]:
    root = tmp_path_factory.mktemp("fuzzed")
    project = root / "odd"
    shutil.copytree(REPOSITORY / "tests" / "projects" / "odd", project)
    for file in project.glob("src/odd/config/*.yaml"):
        file.write_text(file.read_text().replace("{topic}", "it"))  # no input is needed
    flags = ["--stub-llm", "--max-runs", "1"]
    with Receiver() as receiver, ServerProcess(project, root / "data", *flags) as server:
        server.wait_until_ready()
        done = server.kickoff({}, **receiver.urls())
        assert server.wait_for(done)["state"] == "SUCCESS"
        waiting = server.kickoff({"act": "wait", "argument": str(root / "never")})
        asked = Asked(server, [done, waiting])
        yield asked
        assert server.status(waiting)["state"] == "STARTED", server.text
        assert "Traceback" not in server.text
    for operation, statuses in asked.answers.items():
        assert statuses & {200, 204} or operation in NEVER_200, (
            f"{operation} was never answered well: {statuses}"
        )


def is_authentication(details):
    """Which headers may be set is a list, in any case; and one URL may be named twice."""
    return details.get("field", "").startswith((kickoffs.AUTH_FIELD, "authentication"))


@SCHEMA.parametrize()
@ROUTES
def test_answers_are_as_documented(case, asked):
    asked.prepare(case)
    sent = {"headers": {"Authorization": f"Bearer {TOKEN}"}, "session": asked.session}
    response = case.call(asked.server.url, **sent)
    asked.answers[case.operation.label].add(response.status_code)
    details = response.json()["details"] if response.status_code == 422 else {}
    beyond = "misplaced" in details or details.get("field") in BEYOND_SCHEMAS or is_authentication(details)
    excluded = CHECKS.get_by_names(["positive_data_acceptance"]) if beyond else []
    case.validate_response(
        response, excluded_checks=excluded, transport_kwargs={"base_url": asked.server.url, **sent}
    )
