"""One result for each call that starts."""

from crewcast.crew.child.tools import Call, OpenCalls


def a_call(event_id, tool="Look Up", task_id="t"):
    return Call(event_id, "react", tool, {}, task_id, "R")


def test_a_result_finds_its_call_once():
    calls = OpenCalls()
    calls.start(a_call("1"))
    assert calls.end("1", "look_up", "t") == a_call("1")
    assert calls.end("1", "look_up", "t") is None


def test_a_result_that_names_another_event_is_the_newest_of_its_tool_and_task():
    calls = OpenCalls()
    for call in (a_call("1"), a_call("2"), a_call("3", tool="Other"), a_call("4", task_id="u")):
        calls.start(call)
    assert calls.end("a scope", "look_up", "t") == a_call("2")
    assert calls.end(None, "LOOK-UP", "t") == a_call("1")
    assert calls.end(None, "look_up", "t") is None


def test_what_a_task_leaves_open_is_ended_with_it():
    calls = OpenCalls()
    for call in (a_call("1"), a_call("2", task_id="u"), a_call("3")):
        calls.start(call)
    assert [call.event_id for call in calls.abandon("t")] == ["1", "3"]
    assert calls.end("1", "look_up", "t") is None
    assert [call.event_id for call in calls.abandon(None)] == ["2"]
    assert calls.abandon(None) == []


def test_a_refusal_is_told_once():
    class Usage:
        pass

    calls, first, second = OpenCalls(), Usage(), Usage()
    assert [calls.refuse(usage) for usage in (first, first, second)] == [True, False, True]


def test_an_action_is_reported_once_and_another_like_it_too():
    class Action:
        __hash__ = None

        def __eq__(self, other):
            return True

    calls, first, second = OpenCalls(), Action(), Action()
    assert [calls.report(action) for action in (first, first, second, second)] == [True, False, True, False]
    assert calls.report(None) is False
