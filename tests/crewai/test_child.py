"""The child protocol, with real crews on a scripted model and no server."""

import ast
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crewai.driver import BOOT, PATIENCE, Host, lab, newsroom, wait_until_gone
from tests.crewai.releases import has, since

TOOLS = '''
@tool("Look Up")
def look_up(word: str) -> str:
    """Look a word up."""
    return word.upper()

@tool("Fail")
def fail(word: str) -> str:
    """Fail."""
    raise ValueError("no " + word)
'''
# The environments of `make compat` have no pip, as all that uv makes.
INSTALL = (
    f"{sys.executable} -m pip install"
    if importlib.util.find_spec("pip")
    else f"uv pip install --python {sys.executable}"
)
STEPS = {"op", "type", "at", "event_id", "started_event_id"}


@pytest.fixture(scope="module")
def shared_host():
    host = Host(NEWSROOM_TAKEN="from outside", CREWAI_DISABLE_TELEMETRY="false")
    assert host.greeting[1]["op"] == "ready", host.greeting
    yield host
    assert host.close() == 0


@pytest.fixture
def host(shared_host):
    yield shared_host
    shared_host.hang_up()


@pytest.fixture
def run(host, tmp_path):
    """All that a crew says, with what matters of its events."""

    def run(code, **fields):
        return host.start(lab(tmp_path, TOOLS + code), **fields).result()

    return run


def events(lines):
    return [line for line in lines if line["op"] == "event"]


def kinds(lines):
    return [line.get("type", line["op"]) for line in lines]


# The host


def test_the_host_says_what_it_loaded(host):
    assert host.greeting[0] == {"op": "loading"}
    ready = host.greeting[1]
    assert ready["python"] == ".".join(map(str, sys.version_info[:3]))
    assert ready["crewai"].startswith("1.")
    assert ready["seconds"] > 0


def test_the_host_has_one_thread_so_that_forking_is_safe(host):
    assert host.greeting[1]["threads"] == 1
    assert len(list(Path(f"/proc/{host.process.pid}/task").iterdir())) == 1


def test_the_host_holds_no_descriptor_beyond_its_own(host):
    # Once it has seen a child come and go, it is done with all that were forked before.
    child = host.fork()
    child.channel.close()
    child.status()
    links = [entry.readlink() for entry in Path(f"/proc/{host.process.pid}/fd").iterdir()]
    # stdin, stdout, stderr, the control socket, the wake-up pair, epoll.
    assert len(links) <= 7, links


def test_ten_children_at_once(host, tmp_path):
    project = newsroom(tmp_path)
    children = [host.fork() for _ in range(10)]
    for number, child in enumerate(children):
        child.give(project, inputs={"topic": f"Topic {number}"})
    for number, child in enumerate(children):
        lines = child.result()
        assert lines[-1]["op"] == "finished"
        assert {line["agent"] for line in events(lines)} == {
            f"Topic {number} Researcher",
            f"Topic {number} Writer",
        }


# A run


def test_a_classic_project_runs_from_start_to_end(host, tmp_path):
    lines = host.start(newsroom(tmp_path), inputs={"topic": "Bees"}).result()
    assert kinds(lines) == [
        "started",
        "task_started",
        "llm_call_completed",
        "tool_usage_started",
        "tool_usage_finished",
        "llm_call_completed",
        "task_completed",
        "task_started",
        "llm_call_completed",
        "task_completed",
        "finished",
    ]
    assert lines[0]["tasks"] == [
        {"task_id": "research_task", "agent": "{topic} Researcher"},
        {"task_id": "write_task", "agent": "{topic} Writer"},
    ]
    first, second = lines[1:7], lines[7:10]
    assert {(line["task_id"], line["agent"]) for line in first} == {("research_task", "Bees Researcher")}
    assert {(line["task_id"], line["agent"]) for line in second} == {("write_task", "Bees Writer")}
    times = [line["at"] for line in events(lines)]
    assert times == sorted(times)
    assert abs(times[0] / 1e6 - time.time()) < 60

    done = lines[6]
    assert done["output"] == "bees dance"
    assert 0 < done["execution_time"] < PATIENCE
    finished = lines[-1]
    # What an after_kickoff callback made of it; an existing variable wins over the .env file.
    assert finished["output"] == "Bees! (dry, from outside)"
    assert [task["task_id"] for task in finished["tasks"]] == ["research_task", "write_task"]
    assert finished["tasks"][0] == {name: done[name] for name in finished["tasks"][0]}
    assert finished["seconds"] >= sum(task["execution_time"] for task in finished["tasks"])
    assert finished["usage"]["total_tokens"] == 0


def test_a_crew_is_described_without_running(host, tmp_path):
    [described] = host.start(newsroom(tmp_path), op="describe").result()
    assert described == {
        "op": "described",
        "name": "newsroom",
        "inputs": ["audience", "topic"],
        "required": ["audience", "topic"],
        "only": False,
        "tasks": [
            {"task_id": "research_task", "agent": "{topic} Researcher", "human_input": False},
            {"task_id": "write_task", "agent": "{topic} Writer", "human_input": False},
        ],
        "before_kickoff": True,
        "warnings": [],
    }


def test_what_a_crew_prints_is_in_its_log(host, tmp_path):
    code = """
    import os, subprocess, sys
    def build():
        print("to stdout \\udc80")
        print("to stderr", file=sys.stderr)
        os.write(1, b"to the descriptor\\n")
        subprocess.run(["echo", "from a program"])
        assert sys.stdin.read() == ""
        return crew(task(agent(answer("x"))))
    """
    child = host.start(lab(tmp_path, code))
    assert child.result()[-1]["op"] == "finished"
    log = child.log()
    for text in ("to stdout \\udc80", "to stderr", "to the descriptor", "from a program"):
        assert text in log


def test_unnamed_and_repeated_tasks_have_stable_ids(run):
    lines = run("""
def build():
    someone = agent(*[answer(str(n)) for n in range(5)])
    return crew(task(someone), task(someone, "dig"), task(someone, "dig"), task(someone, "dig"), task(someone))
""")
    ids = ["task-1", "dig", "dig-2", "dig-3", "task-5"]
    assert [task["task_id"] for task in lines[0]["tasks"]] == ids
    assert [line["task_id"] for line in lines if line.get("type") == "task_completed"] == ids
    assert [(task["task_id"], task["output"]) for task in lines[-1]["tasks"]] == [
        (name, str(n)) for n, name in enumerate(ids)
    ]


def test_tasks_side_by_side_keep_their_events_apart(run):
    lines = run("""
def build():
    one, two, three = (agent(use("Look Up", word=r), answer(r), role=r, tools=[look_up]) for r in ("A", "B", "C"))
    return crew(task(one, "a", async_execution=True), task(two, "b", async_execution=True), task(three, "c"))
""")
    for line in events(lines):
        assert line["agent"] == line["task_id"].upper()
    for name in "abc":
        own = [line for line in events(lines) if line["task_id"] == name]
        assert kinds(own) == [
            "task_started",
            "llm_call_completed",
            "tool_usage_started",
            "tool_usage_finished",
            "llm_call_completed",
            "task_completed",
        ]
    assert [task["task_id"] for task in lines[-1]["tasks"]] == ["a", "b", "c"]


def test_delegated_work_belongs_to_the_task_around_it(run):
    lines = run("""
from crewai import Crew, Process, Task
from scripted import ScriptedLLM
def build():
    worker = agent(use("Look Up", word="a"), answer("done"), tools=[look_up], role="Worker")
    ask = use("delegate_work_to_coworker", task="do it", context="now", coworker="Worker")
    manager = ScriptedLLM.saying(ask, answer("all done"))
    work = Task(name="work", description="D", expected_output="E")
    return Crew(agents=[worker], tasks=[work], process=Process.hierarchical, manager_llm=manager)
""")
    assert lines[0]["tasks"] == [{"task_id": "work", "agent": None}]
    assert {line["task_id"] for line in events(lines)} == {"work"}
    tools = [(line["agent"], line["type"], line["tool"]) for line in events(lines) if "tool" in line]
    assert tools == [
        ("Crew Manager", "tool_usage_started", "delegate_work_to_coworker"),
        ("Worker", "tool_usage_started", "Look Up"),
        ("Worker", "tool_usage_finished", "Look Up"),
        ("Crew Manager", "tool_usage_finished", "delegate_work_to_coworker"),
    ]


def test_a_crew_inside_a_tool_finishes_no_task_of_the_run(run):
    lines = run('''
@tool("Ask")
def ask(word: str) -> str:
    """Ask another crew."""
    return crew(task(agent(answer("inner"), role="Inner"), "inner")).kickoff().raw
def build():
    return crew(task(agent(use("Ask", word="a"), answer("outer"), tools=[ask], role="Outer"), "outer"))
''')
    assert [(line["type"], line["agent"]) for line in events(lines)] == [
        ("task_started", "Outer"),
        ("llm_call_completed", "Outer"),
        ("tool_usage_started", "Outer"),
        ("llm_call_completed", "Inner"),
        ("tool_usage_finished", "Outer"),
        ("llm_call_completed", "Outer"),
        ("task_completed", "Outer"),
    ]
    assert {line["task_id"] for line in events(lines)} == {"outer"}


def test_a_crew_that_asks_for_streaming_runs_all_the_same(run):
    lines = run("""
def build():
    return crew(task(agent(answer("x"))), stream=True)
""")
    assert lines[-1]["output"] == "x"


# Tools


def test_react_tool_calls(run):
    lines = run("""
def build():
    return crew(task(agent(use("Look Up", word="bee"), answer("x"), tools=[look_up]), "t"))
""")
    started, finished = (line for line in lines if "mode" in line)
    assert {name: value for name, value in started.items() if name not in STEPS} == {
        "task_id": "t",
        "agent": "Researcher",
        "mode": "react",
        "tool": "Look Up",
        "args": '{"word": "bee"}',
    }
    assert {name: value for name, value in finished.items() if name not in STEPS} == {
        "task_id": "t",
        "agent": "Researcher",
        "mode": "react",
        "tool": "Look Up",
        "args": {"word": "bee"},
        "output": "BEE",
        "from_cache": False,
    }
    assert finished["started_event_id"] == started["event_id"]
    thought = lines[2]
    assert thought["response"].startswith("Thought: I need Look Up.")
    assert thought["call_type"] == "llm_call"


def test_native_tool_calls_in_parallel(run):
    lines = run("""
def build():
    calls = [call("look_up", "1", word="a"), call("fail", "2", word="b"), call("look_up", "3", word="c")]
    return crew(task(agent(calls, "done", native=True, tools=[look_up, fail])))
""")
    asked = lines[2]
    assert (asked["call_type"], "response" in asked) == ("tool_call", False)
    starts = {line["event_id"]: line for line in lines if line.get("type") == "tool_usage_started"}
    ends = {line["started_event_id"]: line for line in lines if "started_event_id" in line}
    assert starts.keys() == ends.keys()
    assert {line["mode"] for line in starts.values()} == {"native"}
    outcomes = {
        starts[key]["args"]["word"]: ends[key].get("output", ends[key].get("error")) for key in starts
    }
    assert outcomes == {"a": "A", "b": "no b", "c": "C"}
    assert lines[-1]["output"] == "done"


def test_each_try_of_a_failing_tool_ends_in_one_error(run):
    lines = run("""
def build():
    return crew(task(agent(use("Fail", word="a"), answer("x"), tools=[fail])))
""")
    tools = [line for line in lines if "mode" in line]
    assert kinds(tools) == ["tool_usage_started", "tool_usage_error"] * 3
    for started, failed in zip(tools[::2], tools[1::2], strict=True):
        assert failed["started_event_id"] == started["event_id"]
        assert failed["error"] == "no a"
    assert lines[-1]["op"] == "finished"


@pytest.mark.parametrize(
    ("step", "kind", "args"),
    [
        ("use('Nowhere', a=1)", "tool_selection_error", '{"a": 1}'),
        ("'Thought: hm\\nAction: Look Up\\nAction Input: !!!'", "tool_validate_input_error", "!!!"),
    ],
)
def test_a_call_that_cannot_start_is_refused_once(run, step, kind, args):
    lines = run(f"""
def build():
    return crew(task(agent({step}, answer("x"), tools=[look_up])))
""")
    [refused] = (line for line in lines if "mode" in line)
    assert (refused["type"], refused["mode"], refused["args"]) == (kind, "react", args)
    assert refused["error"]
    assert "started_event_id" not in refused


def test_a_tool_that_the_run_leaves_behind_gets_a_result(run):
    lines = run('''
@tool("Leave")
def leave(word: str) -> str:
    """Leave."""
    raise SystemExit(3)
def build():
    return crew(task(agent([call("leave", word="a")], native=True, tools=[leave])))
''')
    assert kinds(lines)[-3:] == ["tool_usage_started", "tool_usage_error", "failed"]
    assert lines[-2]["started_event_id"] == lines[-3]["event_id"]
    assert lines[-1]["kind"] == "crew"
    assert lines[-1]["error"].startswith("SystemExit: 3 (src/newsroom/crew.py:")


def test_reasoning_is_sent(run):
    lines = run("""
import types
from crewai.events import crewai_event_bus
from crewai.events.types.reasoning_events import AgentReasoningCompletedEvent
@tool("Think")
def think(word: str) -> str:
    \"\"\"Think.\"\"\"
    event = AgentReasoningCompletedEvent(agent_role="R\\n", task_id="unknown", plan="1. look", ready=True)
    crewai_event_bus.emit(None, event)
    return "thought"
def build():
    return crew(task(agent(use("Think", word="a"), answer("x"), tools=[think]), "t"))
""")
    [plan] = (line for line in lines if line.get("type") == "agent_reasoning_completed")
    assert (plan["plan"], plan["agent"], plan["task_id"]) == ("1. look", "R", "t")


# The task boundary


def test_the_crew_waits_for_the_acknowledgement(host, tmp_path):
    code = """
    def build():
        someone = agent(answer("1"), answer("2"))
        return crew(task(someone, "one"), task(someone, "two"))
    """
    child = host.start(lab(tmp_path, code))
    first = child.until("event", "task_completed")
    assert first["sync"] == 1
    assert select.select([child.channel], [], [], 0.3)[0] == []
    child.send({"op": "a line from the future"})
    child.acknowledge(first)
    assert child.next()["type"] == "task_started"
    second = child.until("event", "task_completed")
    assert second["sync"] == 2
    child.acknowledge(second)
    assert child.next()["op"] == "finished"


def test_a_task_beside_goes_on_while_another_waits(host, tmp_path):
    code = """
    import threading
    first_is_done = threading.Event()
    def wait():
        first_is_done.wait(30)
        return answer("2")
    def build():
        one = agent(lambda: answer("1"), role="one")
        two = agent(wait, role="two")
        return crew(
            task(one, "one", async_execution=True, callback=lambda _: first_is_done.set()),
            task(two, "two", async_execution=True),
            task(agent(answer("3")), "three"),
        )
    """
    child = host.start(lab(tmp_path, code))
    first = child.until("event", "task_completed")
    # Not acknowledged, and yet the other task comes to its own end. CrewAI calls a task's callback before it says that
    # the task is done, so either may be the first.
    second = child.until("event", "task_completed")
    assert {first["task_id"], second["task_id"]} == {"one", "two"}
    assert (first["sync"], second["sync"]) == (1, 2)
    child.acknowledge(second)
    assert child.until("finished")["output"] == "3"


# Failures


def test_a_failing_task_fails_the_run(run):
    lines = run(
        """
def build():
    return crew(task(agent(answer("x")), "one"), task(agent(*[RuntimeError("model down")] * 9), "two"))
"""
    )
    assert kinds(lines)[-4:] == ["task_completed", "task_started", "task_failed", "failed"]
    task = lines[-2]
    assert (task["task_id"], task["error"], task["sync"]) == ("two", "model down", 2)
    assert task["execution_time"] > 0
    failed = lines[-1]
    assert (failed["kind"], failed["error"]) == ("crew", "RuntimeError: model down (src/scripted.py:54)")
    assert failed["traceback"].startswith("Traceback")
    assert "no running event loop" not in failed["traceback"]
    assert "_crewcast" not in failed["traceback"]
    assert str(BOOT.parent) not in failed["traceback"]
    assert [task["task_id"] for task in failed["tasks"]] == ["one"]
    assert failed["seconds"] > 0


def test_an_async_task_that_exits_fails_the_run(run):
    lines = run("""
def build():
    one = agent(SystemExit("enough"))
    return crew(task(one, "one", async_execution=True), task(agent(answer("x")), "two"))
""")
    assert (lines[-1]["op"], lines[-1]["kind"]) == ("failed", "crew")
    assert lines[-1]["error"].startswith("SystemExit: enough")


@pytest.mark.parametrize("op", ["describe", "run"])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            "import nothing_of_this_name",
            (
                "ModuleNotFoundError: No module named 'nothing_of_this_name' (src/newsroom/crew.py:5); install it for this "
                f"project: `{INSTALL} nothing_of_this_name` (or whatever the package with this module is called)"
            ),
        ),
        ("import sys; sys.exit(4)", "SystemExit: 4 (src/newsroom/crew.py:5)"),
        ("def build(:", "SyntaxError: invalid syntax (src/newsroom/crew.py:5)"),
        ("def build():\n    return {}['x']", "KeyError: 'x' (src/newsroom/crew.py:6)"),
        ("def build():\n    return 5", "crew() in src/newsroom/crew.py returned int, not a Crew."),
    ],
)
def test_a_project_that_cannot_be_loaded_shows_its_own_line(host, tmp_path, op, code, error):
    project = lab(tmp_path, code)
    [failed] = host.start(project, op=op).result()
    assert (failed["op"], failed["kind"], failed["tasks"]) == ("failed", "load", [])
    assert failed["error"] == error
    assert str(BOOT.parent) not in failed["traceback"]
    assert "importlib" not in failed["traceback"]
    if "not a Crew" not in error:
        assert str(project / "src/newsroom/crew.py") in failed["traceback"]


def test_a_project_without_a_crew_class_says_so(host, tmp_path):
    project = lab(tmp_path, "", footer="")
    [failed] = host.start(project).result()
    assert failed["error"] == "src/newsroom/crew.py has no class decorated with @CrewBase."


def test_the_class_defined_in_the_module_comes_first(host, tmp_path):
    project = lab(
        tmp_path,
        "from newsroom.other import Other\ndef build():\n    return crew(task(agent(answer('own'))))",
    )
    other = "from crewai.project import CrewBase\n@CrewBase\nclass Other:\n    pass\n"
    (project / "src/newsroom/other.py").write_text(other)
    assert host.start(project).result()[-1]["output"] == "own"


def test_a_missing_input_is_named(host, tmp_path):
    lines = host.start(newsroom(tmp_path), inputs={"tpoic": "Bees"}).result()
    failed = lines[-1]
    assert kinds(lines) == ["started", "failed"]
    assert failed["kind"] == "input"
    assert "Missing required template variable" in failed["error"]
    assert "'topic'" in failed["error"]
    assert failed["error"].endswith("the crew takes: audience, topic")


def test_a_crew_for_review_is_refused_before_it_costs_anything(run):
    lines = run("""
def build():
    someone = agent(RuntimeError("was called"))
    return crew(task(someone, "draft"), task(someone, "publish", human_input=True))
""")
    [failed] = lines
    assert (failed["kind"], failed["tasks"]) == ("refused", [])
    assert "publish" in failed["error"]
    assert "draft" not in failed["error"]


# The process


def test_what_a_child_is_given(host, tmp_path):
    code = """
    import json, os, random, sys, signal, threading
    def build():
        facts = {
            "environment": dict(os.environ),
            "descriptors": {name: os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                            if os.path.exists("/proc/self/fd/" + name)},
            "inheritable": [fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")
                            and os.get_inheritable(fd)],
            "path": sys.path[:3], "argv": sys.argv, "cwd": os.getcwd(),
            "modules": [m for m in sys.modules if m in ("host", "events", "tools", "crewcast", "project")],
            "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
            "sigchld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
            "threads": sorted(t.name for t in threading.enumerate()),
            "random": random.random(),
        }
        return crew(task(agent(answer(json.dumps(facts)))))
    """
    project = lab(tmp_path, code)
    (project / ".env").write_text(
        "LAB_SECRET=7\nNEWSROOM_TAKEN=from the file\nCREWAI_DISABLE_TELEMETRY=false\n"
    )
    child = host.start(project)
    facts = json.loads(child.result()[-1]["output"])
    again = json.loads(host.start(project).result()[-1]["output"])

    environment = facts["environment"]
    assert environment["LAB_SECRET"] == "7"
    assert environment["NEWSROOM_TAKEN"] == "from outside"
    host_environment = dict(
        entry.split("=", 1)
        for entry in Path(f"/proc/{host.process.pid}/environ").read_text().split("\0")
        if entry
    )
    added = {name for name in environment if environment[name] != host_environment.get(name)}
    # CrewAI itself sets that one when it is imported.
    assert added - {"TOKENIZERS_PARALLELISM"} == {
        "LAB_SECRET",
        "CREWAI_DISABLE_TELEMETRY",
        "CREWAI_TRACING_ENABLED",
        "CREWAI_DISABLE_VERSION_CHECK",
        "CREWAI_STORAGE_DIR",
    }
    assert environment["CREWAI_DISABLE_TELEMETRY"] == "true"

    descriptors = facts["descriptors"]
    assert descriptors.pop("0") == "/dev/null"
    assert descriptors.pop("1") == descriptors.pop("2") == str(child.log_path)
    # The channel; before 1.13 also the event loop of CrewAI's bus, from the start: a selector and its wake-up pair.
    loop = [] if has("1.13.0") else ["anon_inode", "socket", "socket"]
    assert sorted(link.partition(":")[0] for link in descriptors.values()) == [*loop, "socket"]
    assert facts["inheritable"] == []

    assert facts["path"][:2] == [str(project / "src"), str(project)]
    assert facts["cwd"] == str(project)
    assert facts["argv"] == ["crewcast"]
    assert facts["modules"] == []
    assert (facts["sigterm"], facts["sigint"], facts["sigchld"]) == (True, True, True)
    loop = [] if has("1.13.0") else ["CrewAIEventsLoop"]
    assert facts["threads"] == [*loop, "MainThread", "crewcast-control"]
    assert facts["random"] != again["random"]


def test_a_project_may_use_the_names_of_our_modules(host, tmp_path):
    project = lab(
        tmp_path, "import events, tools, wire\ndef build():\n    return crew(task(agent(answer(events.own))))"
    )
    for name in ("events", "tools", "wire"):
        (project / f"src/{name}.py").write_text("own = 'the project has it'")
    assert host.start(project).result()[-1]["output"] == "the project has it"


def test_the_env_file_may_turn_our_defaults_around(host, tmp_path):
    project = lab(
        tmp_path,
        """
        import os
        def build():
            return crew(task(agent(answer(os.environ["CREWAI_DISABLE_VERSION_CHECK"]))))
        """,
    )
    (project / ".env").write_text("CREWAI_DISABLE_VERSION_CHECK=false\n")
    assert host.start(project).result()[-1]["output"] == "false"


@since("1.15.16", "execution ids")
def test_the_run_has_our_id_in_crewai(host, tmp_path):
    code = """
    from crewai.execution import get_execution_uuid
    def build():
        return crew(task(agent(lambda: answer(get_execution_uuid()))))
    """
    child = host.start(lab(tmp_path, code))
    assert child.result()[-1]["output"] == child.run_id


def test_the_stub_model_is_set_before_the_project_is_loaded(host, tmp_path):
    code = """
    from crewai import LLM
    def build():
        return crew(task(agent(answer(LLM(model="openai/gpt-4o").base_url))))
    """
    stub = {"base_url": "http://127.0.0.1:1/v1"}
    if not (BOOT.parent / "stub.py").exists():
        pytest.skip("the stub is not written yet")
    assert host.start(lab(tmp_path, code), stub_llm=stub).result()[-1]["output"] == "http://127.0.0.1:1/v1"


def test_handlers_that_a_crew_left_behind_get_to_finish(host, tmp_path):
    code = """
    import atexit, time
    from crewai.events import crewai_event_bus, CrewKickoffCompletedEvent
    @crewai_event_bus.on(CrewKickoffCompletedEvent)
    def slow(source, event):
        time.sleep(0.3)
        print("the handler is done")
    atexit.register(print, "the exit handler is done")
    def build():
        return crew(task(agent(answer("x"))))
    """
    child = host.start(lab(tmp_path, code))
    child.result()
    assert "the handler is done" in child.log()
    assert "the exit handler is done" in child.log()


BUSY = """
import sys, threading, time
def forever():
    print("busy", file=sys.stderr)
    while True:
        time.sleep(0.01)
def build():
    return crew(task(agent(forever)))
"""


def test_a_closed_channel_ends_the_child_wherever_it_is(host, tmp_path):
    child = host.start(lab(tmp_path, BUSY))
    child.until("event", "task_started")
    child.channel.close()
    assert child.status() == 75
    wait_until_gone(child.pid)


def test_a_channel_closed_before_the_job_ends_the_child(host):
    child = host.fork()
    child.channel.close()
    assert child.status() == 75


def test_a_child_that_waits_for_an_acknowledgement_ends_with_its_channel(host, tmp_path):
    child = host.start(lab(tmp_path, "def build():\n    return crew(task(agent(answer('x'))))"))
    child.until("event", "task_completed")
    child.channel.close()
    assert child.status() == 75


def test_a_server_may_close_as_soon_as_it_has_the_outcome(host, tmp_path):
    code = """
    import atexit, time
    atexit.register(lambda: (time.sleep(0.3), print("the exit handler is done")))
    def build():
        return crew(task(agent(answer("x"))))
    """
    child = host.start(lab(tmp_path, code))
    child.until("finished")
    child.channel.close()
    assert child.status() == 0
    assert "the exit handler is done" in child.log()


def test_children_die_with_their_host(tmp_path):
    own = Host()
    child = own.start(lab(tmp_path, BUSY))
    child.until("event", "task_started")
    pid = child.pid
    own.kill()
    wait_until_gone(pid)
    own.close()


def test_ctrl_c_is_for_the_server(host, tmp_path):
    child = host.start(lab(tmp_path, BUSY))
    child.until("event", "task_started")
    os.kill(host.process.pid, signal.SIGINT)
    os.kill(child.pid, signal.SIGINT)
    assert host.start(tmp_path, op="describe").next()["op"] == "described"
    os.kill(child.pid, signal.SIGTERM)
    assert child.status() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os._exit(9)", 9),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("ctypes.string_at(0)", -signal.SIGSEGV),
    ],
)
def test_how_a_crew_ended_is_reported(host, tmp_path, end, status):
    code = f"import ctypes, os, signal\ndef build():\n    return crew(task(agent(lambda: {end})))"
    child = host.start(lab(tmp_path, code))
    assert "task_completed" not in kinds(child.rest())
    assert child.status() == status


# The wire


def test_text_that_is_no_unicode_arrives_as_text(run):
    lines = run("""
def build():
    odd = "a\\ud800b \\ud83d\\ude00"
    return crew(task(agent([call("look_up", word=odd)], odd, native=True, tools=[look_up])))
""")
    assert lines[-1]["output"] == "a\ufffdb \U0001f600"
    [started] = (line for line in lines if line.get("type") == "tool_usage_started")
    assert started["args"] == {"word": "a\ufffdb \U0001f600"}


def test_values_that_json_has_not(run):
    lines = run('''
@tool("Take")
def take(numbers: dict) -> str:
    """Take numbers."""
    return float("nan")
def build():
    return crew(task(agent([call("take", numbers={"a": float("inf"), "\\ud800": [1]})], "x", native=True, tools=[take])))
''')
    [started] = (line for line in lines if line.get("type") == "tool_usage_started")
    assert started["args"] == {"numbers": {"a": None, "\ufffd": [1]}}
    [finished] = (line for line in lines if line.get("type") == "tool_usage_finished")
    assert finished["output"] == "nan"


def test_five_megabytes_arrive_whole(run):
    lines = run("""
def build():
    return crew(task(agent(lambda: answer("ä" * 5_000_000))))
""")
    assert lines[-1]["output"] == lines[-1]["tasks"][0]["output"] == "ä" * 5_000_000


# The code


def test_the_folder_is_written_in_the_python_of_the_oldest_project():
    python = shutil.which("python3.10")
    usable = python and subprocess.run([python, "-V"], capture_output=True, check=False).returncode == 0
    for file in BOOT.parent.glob("*.py"):
        source = file.read_text()
        ast.parse(source, feature_version=(3, 10))
        assert "crewcast." not in "".join(
            line for line in source.splitlines() if line.startswith(("import", "from"))
        )
        if python and usable:
            compiling = [python, "-c", "import sys; compile(sys.stdin.read(), 'x', 'exec')"]
            subprocess.run(compiling, input=source, text=True, check=True)
