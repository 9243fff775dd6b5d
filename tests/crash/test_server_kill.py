"""Rows of the crash table: what is true after the server or a child is killed, or told to stop."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crewcast.core.run import Run, RunState
from crewcast.store.sqlite import SQLiteStore
from tests.support.mill import wait_until
from tests.support.processes import alive, descendants, kill
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import CLASSIC, TOKEN, ServerProcess

ODD = Path(__file__).parents[1] / "projects" / "odd"
INPUTS = {"topic": "tea", "audience": "all"}


def odd(data: Path, *flags: str) -> ServerProcess:
    return ServerProcess(ODD, data, "--stub-llm", "--stub-delay", "0", *flags)


def loads_later(project: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of the project that is loaded once the file is there, which comes second."""
    copy, go_on = folder / project.name, folder / "load"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("__pycache__", ".crewcast"))
    (module,) = copy.glob("src/*/crew.py")
    wait = f"import os, time\nwhile not os.path.exists({str(go_on)!r}):\n    time.sleep(0.02)\n"
    module.write_text(wait + module.read_text())
    return copy, go_on


def test_kill_9_of_the_server_in_the_middle_of_a_run(tmp_path):
    """The run goes on, what was undelivered comes in order with its ids, no crew outlives the server."""
    go_on = tmp_path / "go-on"
    with Receiver() as receiver:
        # The subscriber is away while the first server lives: what it misses must come later.
        receiver.answer = lambda request, n: 503
        with odd(tmp_path, "--retry-schedule", "0.2") as server:
            server.wait_until_ready()
            kickoff_id = server.kickoff(
                {"topic": "tea", "act": "wait", "argument": str(go_on)}, **receiver.urls()
            )
            wait_until(lambda: any(event["type"] == "step" for event in server.events(kickoff_id)))
            # What came of an attempt is committed: one that the kill cuts off is not counted.
            deliveries = f"/api/v1/runs/{kickoff_id}/deliveries"
            wait_until(lambda: server.ask("GET", deliveries).json["attempts"])
            before = server.events(kickoff_id)
            pids = descendants(server.process.pid)
            assert len(pids) == 2, "a host and its child"
            server.kill()
        wait_until(lambda: not any(map(alive, pids)))
        receiver.answer = lambda request, n: 204
        with odd(tmp_path, "--retry-schedule", "0.2") as server:
            go_on.touch()
            status = server.wait_for(kickoff_id)
            assert (status["status"], status["state"]) == ("completed", "SUCCESS")
            log = server.events(kickoff_id)
            assert log[: len(before)] == before
            assert {event["run_attempt"] for event in before} == {1}
            assert {event["run_attempt"] for event in log[len(before) :]} == {2}
            assert [event["channel"] for event in log].count("crew") == 1
            assert log[-1]["type"] == "crew.completed"
            receiver.wait(lambda got: len({one.event_id for one in got}) == len(log))
            check_lanes(receiver.requests)
            assert {one.event_id for one in receiver.requests} == {event["id"] for event in log}
            tried = {one.event_id: int(one.headers["crewcast-delivery-attempt"]) for one in receiver.requests}
            assert max(tried.values()) > 1, "the attempts before the kill are counted"


def test_kill_9_with_a_queued_run_loses_nothing_that_was_acknowledged(tmp_path):
    project, load = loads_later(ODD, tmp_path)
    data = tmp_path / "data"
    with Receiver() as receiver:
        with ServerProcess(project, data, "--stub-llm", "--stub-delay", "0") as server:
            # The crew still loads: the kickoff is durable and waits.
            kickoff_id = server.kickoff({"topic": "tea"}, **receiver.urls())
            assert server.status(kickoff_id)["state"] == "PENDING"
            server.kill()
        load.touch()
        with ServerProcess(project, data, "--stub-llm", "--stub-delay", "0") as server:
            assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
            receiver.wait_for_crew_events()


def test_an_idempotency_key_holds_over_a_kill(tmp_path):
    with odd(tmp_path) as server:
        first = server.ask("POST", "/kickoff", {"inputs": {"topic": "tea"}}, idempotency_key="k-1").json[
            "kickoff_id"
        ]
        server.kill()
    with odd(tmp_path) as server:
        again = server.ask("POST", "/kickoff", {"inputs": {"topic": "tea"}}, idempotency_key="k-1")
        assert again.json["kickoff_id"] == first
        assert again.headers["idempotency-replayed"] == "true"


def test_a_kickoff_that_was_accepted_is_answered_again_whatever_is_known_by_now(tmp_path):
    """While a crew loads a lacking input is not known; the retry with the same key must not be refused for it."""
    project, load = loads_later(CLASSIC, tmp_path)
    with ServerProcess(project, tmp_path / "data", "--stub-llm") as server:
        first = server.ask("POST", "/kickoff", {"inputs": {}}, idempotency_key="k")
        assert first.status == 200
        load.touch()
        server.wait_until_ready()
        again = server.ask("POST", "/kickoff", {"inputs": {}}, idempotency_key="k")
        assert (again.status, again.json["kickoff_id"]) == (200, first.json["kickoff_id"])
        assert server.ask("POST", "/kickoff", {"inputs": {}}, idempotency_key="other").status == 422


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    data = tmp_path_factory.mktemp("odd")
    with odd(data, "--retry-schedule", "0.1") as server:
        server.wait_until_ready()
        yield server


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"act": "exit"}, "the crew's process ended by itself (exit status 3) (attempt 2 of 2)"),
        ({"act": "segfault"}, "the crew's process was killed (SIGSEGV) (attempt 2 of 2)"),
    ],
)
def test_a_child_that_dies_again_and_again_ends_its_run_alone(running, inputs, error):
    with Receiver() as receiver:
        dying = running.kickoff({"topic": "tea"} | inputs, **receiver.urls("/dying"))
        other = running.kickoff({"topic": "tea"}, **receiver.urls("/other"))
        status = running.wait_for(dying)
        assert (status["state"], status["error"]) == ("FAILED", error)
        assert running.wait_for(other)["state"] == "SUCCESS"
        crew = [one for one in receiver.wait_for_crew_events(2) if one.path == "/dying/crew"]
        assert len(crew) == 1
        assert error.encode() in crew[0].body


def test_a_killed_child_ends_a_run_that_may_be_tried_once(running, tmp_path):
    kickoff_id = running.kickoff(
        {"topic": "tea", "act": "wait", "argument": str(tmp_path / "never")}, max_attempts=1
    )
    [host] = descendants(running.process.pid)[:1]
    wait_until(lambda: descendants(host) and running.events(kickoff_id))
    kill(descendants(host))
    error = "the crew's process was killed (SIGKILL; often the sign of too little memory)"
    assert running.wait_for(kickoff_id)["error"] == error


def test_a_killed_host_is_started_again_and_its_runs_go_on(running, tmp_path):
    go_on = tmp_path / "go-on"
    kickoff_id = running.kickoff({"topic": "tea", "act": "wait", "argument": str(go_on)})
    once = running.kickoff({"topic": "tea", "act": "wait", "argument": str(go_on)}, max_attempts=1)
    wait_until(lambda: running.events(kickoff_id) and running.events(once))
    [host] = descendants(running.process.pid)[:1]
    os.kill(host, signal.SIGKILL)
    assert running.wait_for(once)["error"] == "the crew's process was lost"
    go_on.touch()
    assert running.wait_for(kickoff_id)["state"] == "SUCCESS"
    assert running.events(kickoff_id)[-1]["run_attempt"] == 2


def test_sigterm_lets_running_crews_finish_and_takes_no_more(tmp_path):
    go_on = tmp_path / "go-on"
    with Receiver() as receiver, odd(tmp_path / "data") as server:
        server.wait_until_ready()
        kickoff_id = server.kickoff(
            {"topic": "tea", "act": "wait", "argument": str(go_on)}, **receiver.urls()
        )
        wait_until(lambda: server.events(kickoff_id))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask("GET", "/healthz").json["status"] == "draining")
        assert server.ask("GET", "/healthz").status == 503
        refused = server.ask("POST", "/kickoff", {"inputs": {"topic": "tea"}})
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        go_on.touch()
        assert server.wait() == 0
        # What was not sent by then is sent at the next start.
        with odd(tmp_path / "data"):
            requests = receiver.wait_for_crew_events()
        assert b'"status":"completed"' in requests[-1].body
        check_lanes(requests)


def test_crews_that_take_too_long_for_sigterm_go_on_at_the_next_start(tmp_path):
    go_on = tmp_path / "go-on"
    with Receiver() as receiver:
        with odd(tmp_path, "--drain", "0.3") as server:
            server.wait_until_ready()
            kickoff_id = server.kickoff(
                {"topic": "tea", "act": "wait", "argument": str(go_on)}, **receiver.urls()
            )
            once = server.kickoff({"topic": "tea", "act": "wait", "argument": str(go_on)}, max_attempts=1)
            wait_until(lambda: server.events(kickoff_id) and server.events(once))
            assert server.terminate() == 0
        assert asyncio.run(stored(tmp_path, kickoff_id)).state is RunState.QUEUED
        with odd(tmp_path) as server:
            assert server.status(once)["error"] == "the server ended during the run"
            go_on.touch()
            assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
            log = server.events(kickoff_id)
            assert [event["channel"] for event in log].count("crew") == 1
            receiver.wait(lambda got: len({one.event_id for one in got}) == len(log))
            check_lanes(receiver.requests)


async def stored(data: Path, kickoff_id: str) -> Run:
    """A run in the folder of a server that has ended."""
    store = await SQLiteStore.open(data)
    run = await store.run(kickoff_id)
    await store.close()
    assert run is not None
    return run


def test_a_subscriber_that_comes_back_gets_everything_in_order(running):
    with Receiver() as receiver:
        receiver.answer = lambda request, n: 500 if n % 3 else 204
        kickoff_id = running.kickoff({"topic": "tea"}, **receiver.urls())
        log = (running.wait_for(kickoff_id), running.events(kickoff_id))[1]
        receiver.wait(lambda got: len(got) >= len(log) and got[-1].path == "/crew", 60)
        wait_until(
            lambda: (
                not any(
                    lane["pending"]
                    for lane in running.ask("GET", f"/api/v1/runs/{kickoff_id}/deliveries").json["lanes"]
                )
            )
        )
        check_lanes(receiver.requests)
        assert {one.event_id for one in first_deliveries(receiver.requests)} == {event["id"] for event in log}


def test_what_a_crew_child_sees(running, tmp_path):
    """The project's .env; none of Crewcast's variables; only its own descriptors."""
    seen_file = tmp_path / "seen.json"
    running.wait_for(running.kickoff({"topic": "tea", "act": "look", "argument": str(seen_file)}))
    seen = json.loads(seen_file.read_text())
    assert seen["environ"]["ODD_SECRET"] == "from-the-dotenv-file"
    assert [name for name in seen["environ"] if "CREWCAST" in name.upper()] == []
    assert TOKEN not in json.dumps(seen)
    assert seen["cwd"] == str(ODD)


def test_a_crew_child_shares_no_descriptor_but_its_log(running, tmp_path):
    go_on = tmp_path / "go-on"
    kickoff_id = running.kickoff({"topic": "tea", "act": "wait", "argument": str(go_on)})
    wait_until(lambda: running.events(kickoff_id))
    server = running.process.pid
    wait_until(lambda: len(descendants(server)) == 2)  # a child of another run may be about to end
    host, child = descendants(server)
    mine = open_files(child)
    assert mine["0"] == "/dev/null"
    assert mine["1"] == mine["2"]
    assert mine["1"].endswith(f"{kickoff_id}.log")
    for other in (server, host):
        shared = set(mine.values()) & set(open_files(other).values()) - {
            "/dev/null",
            "anon_inode:[eventpoll]",
        }
        assert shared == set(), f"shared with {other}"
    go_on.touch()
    running.wait_for(kickoff_id)


def open_files(pid: int) -> dict[str, str]:
    """Descriptor -> what it is; sockets and pipes are told apart by their inode."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[link.name] = str(link.readlink())
        except FileNotFoundError:
            continue
    return found


def test_output_is_kept_per_run(running):
    kickoff_id = running.kickoff({"topic": "tea", "act": "print"})
    running.wait_for(kickoff_id)
    printed = running.ask("GET", f"/api/v1/runs/{kickoff_id}/logs").body
    assert b"printed on stdout" in printed
    assert b"printed on stderr" in printed
    other = running.kickoff({"topic": "tea"})
    running.wait_for(other)
    assert b"printed on" not in running.ask("GET", f"/api/v1/runs/{other}/logs").body


def test_a_child_may_flush_what_it_has_after_its_outcome(running, tmp_path):
    """Exporters of traces and the like write at exit; ending the child with its last word would lose that."""
    flushed = tmp_path / "flushed"
    assert (
        running.wait_for(running.kickoff({"topic": "tea", "act": "atexit", "argument": str(flushed)}))[
            "state"
        ]
        == "SUCCESS"
    )
    wait_until(flushed.exists)


def test_a_crew_that_raises_tells_its_error(running):
    status = running.wait_for(running.kickoff({"topic": "tea", "act": "raise"}))
    assert status["state"] == "FAILED"
    assert "the odd job went wrong" in status["error"]
    assert "src/odd/crew.py" in status["traceback"]


def test_a_large_result_is_cut_in_the_event_and_whole_in_the_status(running):
    with Receiver() as receiver:
        kickoff_id = running.kickoff({"topic": "tea", "act": "big", "argument": "3000000"}, **receiver.urls())
        status = running.wait_for(kickoff_id)
        assert len(status["result"]["output"]) == 3_000_000
        crew = receiver.wait_for_crew_events()[-1]
        assert len(crew.body) <= 256 * 1024
        assert b"[cut by Crewcast: 3000000 characters in all" in crew.body
        last = running.events(kickoff_id)[-1]
        assert last["cut"] is True
        whole = running.ask("GET", f"/api/v1/runs/{kickoff_id}/events/{last['seq']}").json
        assert len(whole["payload"]["result"]["output"]) == 3_000_000


def test_an_input_that_is_missing_at_run_time_ends_the_run(tmp_path):
    project, load = loads_later(CLASSIC, tmp_path)
    with Receiver() as receiver, ServerProcess(project, tmp_path / "data", "--stub-llm") as server:
        # The crew is not loaded yet, so its inputs are not known: the runs themselves find out.
        ids = [server.kickoff(inputs, **receiver.urls()) for inputs in ({"topic": "tea"}, {})]
        load.touch()
        for kickoff_id in ids:
            status = server.wait_for(kickoff_id)
            assert status["state"] == "FAILED"
            assert "an input is missing" in status["error"]
            assert "audience" in status["error"]
        crew = [one for one in receiver.wait_for_crew_events(2) if one.path == "/crew"]
        assert {one.headers["crewcast-kickoff-id"] for one in crew} == set(ids)
        assert all(b"audience" in one.body for one in crew)


def test_a_project_that_cannot_be_loaded_says_why_everywhere(tmp_path):
    project = Path(__file__).parents[1] / "projects" / "broken"
    with Receiver() as receiver, ServerProcess(project, tmp_path, "--stub-llm") as server:
        answer = server.ask("GET", "/inputs", timeout=60)
        assert answer.status == 500
        assert "No module named 'a_package_that_is_not_installed'" in answer.json["message"]
        assert "src/broken/crew.py" in answer.json["message"]
        assert "from a_package_that_is_not_installed import something" in answer.json["details"]["traceback"]
        wait_until(lambda: "a_package_that_is_not_installed" in server.text)
        status = server.wait_for(server.kickoff({}, **receiver.urls()))
        assert "the project did not load" in status["error"]
        assert "from a_package_that_is_not_installed" in status["traceback"]
        [crew] = receiver.wait_for_crew_events()
        assert b"a_package_that_is_not_installed" in crew.body
        assert server.ask("GET", "/healthz").json["crews"] == {"broken": "not loadable"}


def start(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
    command = [sys.executable, "-m", "crewcast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables | environ)


def test_what_keeps_a_server_from_starting_is_said_in_a_line(running, tmp_path):
    port = running.url.rsplit(":", 1)[1]
    data = str(tmp_path / "data")
    file = tmp_path / "file"
    file.touch()
    toml = tmp_path / "crewcast.toml"
    toml.write_text("prot = 1\n")
    for arguments, said in [
        (["dev", str(ODD), "--port", port, "--data-dir", data], f"port {port} is in use"),
        (["dev", str(ODD), "--port", "x"], "--port:"),
        (["dev", str(tmp_path), "--port", "0"], "no CrewAI project that Crewcast knows"),
        (["dev", str(tmp_path / "nowhere")], "is not a folder"),
        (["dev", str(ODD), "--port", "0", "--data-dir", str(file)], str(file)),
        (["dev", str(ODD), "--port", "0", "--python", str(file)], "no Python interpreter"),
        (["serve", str(ODD), "--port", "0", "--data-dir", data], "a token is required"),
        (["serve", str(ODD), "--config", str(toml)], "not a setting: prot"),
    ]:
        done = start(*arguments)
        assert done.returncode == 2, (arguments, done)
        assert said in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_data_folder_that_another_server_holds(running):
    data = next(part for part in running.process.args if "odd" in str(part) and "projects" not in str(part))
    done = start("dev", str(ODD), "--port", "0", "--data-dir", str(data))
    assert done.returncode == 2
    assert str(running.process.pid) in done.stderr


def test_serve_is_strict_about_urls_and_answers_to_any_host(tmp_path):
    with ServerProcess(ODD, tmp_path, command="serve") as server:
        for url in (
            "http://example.com/x",
            "https://127.0.0.1/x",
            "https://localhost/x",
            "https://10.0.0.1/",
        ):
            answer = server.ask("POST", "/kickoff", {"inputs": {"topic": "x"}, "taskWebhookUrl": url})
            assert (answer.status, answer.json["details"]) == (422, {"field": "taskWebhookUrl"})
        assert server.ask("GET", "/", host="crews.example.com").body == b"Healthy"
        assert TOKEN not in server.text


def test_the_data_folder_keeps_itself_out_of_git_and_of_others_sight(running):
    assert (running.data / ".gitignore").read_text() == "*\n"
    for file in ("crewcast.db", "secret.key"):
        assert (running.data / file).stat().st_mode & 0o077 == 0


def test_http_answers_at_once_while_crewai_loads(tmp_path):
    project, load = loads_later(ODD, tmp_path)
    with ServerProcess(project, tmp_path / "data", "--stub-llm") as server:
        assert server.ask("GET", "/healthz").json["crews"] == {"odd-jobs": "loading"}
        load.touch()
        assert server.ask("GET", "/inputs", timeout=60).json == {"inputs": ["topic"]}
