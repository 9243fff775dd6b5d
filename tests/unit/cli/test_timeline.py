"""Events as lines that a person reads."""

import io

from crewcast.cli.timeline import Timeline


def lines(*events: dict, **how) -> list[str]:
    out, times = io.StringIO(), iter([0.0] + [1.5] * 99)
    timeline = Timeline(out, **({"width": 100} | how), clock=lambda: next(times))
    for event in events:
        timeline.event(event) if "seq" in event else timeline.state(event)
    return out.getvalue().splitlines()


def event(channel: str, payload: dict) -> dict:
    return {"seq": 4, "channel": channel, "payload": payload}


def test_each_kind_of_event_is_a_line():
    step = {"type": "tool_call", "tool": "search", "input": {"q": "tea", "n": 2}}
    found = lines(
        event("step", {"task_id": "research", "step": step}),
        event(
            "step",
            {"task_id": "research", "step": {"type": "tool_result", "tool": "search", "output": "a\nb"}},
        ),
        event(
            "task", {"task_id": "research", "status": "completed", "output": "done", "execution_time": 0.25}
        ),
        event("crew", {"status": "error", "error": "boom\x1b[31m"}),
    )
    assert found == [
        "   1.50s  step   4  research           tool_call    search(q='tea', n=2)",
        "   1.50s  step   4  research           tool_result  search -> a b",
        "   1.50s  task   4  research           completed in 0.25 s: done",
        "   1.50s  crew   4  error: boom [31m",
    ]


def test_lines_fit_the_terminal():
    [line] = lines(event("task", {"task_id": "t", "status": "completed", "output": "x" * 500}), width=60)
    assert len(line) == 60
    assert line.endswith("…")


def test_a_state_is_said_once():
    queued = {"state": "PENDING", "progress": {}, "crew_state": "loading"}
    started = {"state": "STARTED", "progress": {"total_tasks": 3}}
    assert [line.split("run", 1)[1].strip() for line in lines(queued, queued, started, started)] == [
        "queued; CrewAI is still loading",
        "started, 3 tasks",
    ]


def test_a_run_that_waits_for_more_than_its_turn_says_for_what():
    waits = {
        "state": "PENDING",
        "progress": {},
        "crew_state": "no worker",
        "waits_for": "a worker: none is there",
    }
    [line] = lines(waits)
    assert line.endswith("queued; it waits for a worker: none is there")


def test_a_wait_is_one_line_on_a_terminal_and_one_now_and_then_in_a_file():
    waits = [{"state": "PENDING", "progress": {}, "crew_state": "loading", "waited": n} for n in range(12)]
    said = [line.split("loading", 1)[1] for line in lines(*waits)]
    assert said == ["", " (5 s)", " (10 s)"]
    shown = lines(*waits[:3], {"state": "STARTED", "progress": {}}, rewrites=True)
    assert [line.startswith("\x1b[1A\x1b[2K") for line in shown] == [False, True, True, True]


def test_a_pause_tells_how_to_decide_whole_and_what_comes_after_it():
    def state(name, **more):
        return {"state": name, "kickoff_id": "01a20fc6-3137-7482-ad37-728361cda643", "progress": {}} | more

    asked = {"task_id": "notice", "task_output": "o", "expires_at": "2026-02-01T13:00:00.000000Z"}
    found = lines(
        state("STARTED"),
        event("human_input", asked) | {"type": "human_input.requested"},
        state("PAUSED"),
        event("human_input", asked) | {"type": "human_input.reminder"},
        state("PAUSED"),
        state("PENDING", crew_state="ready"),
        state("STARTED"),
        width=70,
    )
    assert [line[10:] if line[0:9].strip() else line.strip() for line in found] == [
        "run       started",
        "ask    4  notice             a person is asked until 2026-0…",
        "run       waits for a person; in another terminal:",
        "crewcast approve 01a20fc6-3137-7482-ad37-728361cda643",
        "crewcast reject 01a20fc6-3137-7482-ad37-728361cda643 --feedback 'what to change'",
        "ask    4  notice             reminder: a decision is awaite…",
        "run       decided",
        "run       goes on",
    ]


def test_a_stop_is_told_when_it_is_asked_for_and_when_it_is_done():
    found = lines(
        {"state": "STARTED", "progress": {}, "stopping": True}, {"state": "REVOKED", "progress": {}}
    )
    assert [line.split("run", 1)[1].strip() for line in found] == [
        "is to stop; it ends at the crew's next step",
        "stopped",
    ]
