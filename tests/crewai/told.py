"""What subscribers are told of a crew's run, made from the lines of its child, and what is true of every run."""

import json

from crewcast.contract import webhooks
from crewcast.core.event import Channel
from crewcast.crew.mapping import Mapping
from tests.support.receiver import check_body


class Told:
    """Payloads by channel: `tasks` and `steps` in their order, and the one of the `crew`."""

    def __init__(self, run_id, lines):
        self.lines = lines
        self.failed = lines[-1] if lines[-1]["op"] == "failed" else None
        self.drafts = []
        mapping = Mapping(run_id, {"request": "r-1"})
        for line in lines:
            self.drafts += mapping.drafts(line) if line["op"] == "event" else []
        self.drafts += [_outcome(run_id, line) for line in lines if line["op"] in ("finished", "failed")]
        self.tasks, self.steps, crew = (
            [draft.payload for draft in self.drafts if draft.channel is channel]
            for channel in (Channel.TASK, Channel.STEP, Channel.CREW)
        )
        [self.crew] = crew
        self._check()

    @property
    def output(self):
        assert self.failed is None, self.failed
        return self.crew["result"]["output"]

    @property
    def error(self):
        return self.failed["error"]

    def ends(self):
        """How each told task ended, in the order of the telling."""
        return [(task["task_id"], task["status"], task.get("output")) for task in self.tasks]

    def outputs(self):
        """What the tasks said, all of them completed, in the order of the telling."""
        assert {task["status"] for task in self.tasks} <= {"completed"}
        return {task["task_id"]: task["output"] for task in self.tasks}

    def story(self, task_id):
        """The steps of a task, of no task for None, as `agent thought what`.

        A ReAct agent's actions and observations are left out: that they stand beside calls and results is checked.
        """
        return [
            f"{step['agent']} {step['step']['type']} {_what(step['step'])}"
            for step in self.steps
            if step.get("task_id") == task_id and step["step"]["type"] not in ("action", "observation")
        ]

    def results(self, tool):
        """What a tool said, each time."""
        steps = [step["step"] for step in self.steps]
        return [step["output"] for step in steps if step["type"] == "tool_result" and step["tool"] == tool]

    def _check(self):
        ops = [line["op"] for line in self.lines]
        assert ops[-1] in ("finished", "failed"), ops
        assert ops == ["started", *["event"] * (len(ops) - 2), ops[-1]] or ops == ["failed"], ops
        for draft in self.drafts:
            assert check_body(draft.channel.name.lower(), json.loads(json.dumps(draft.payload))) == [], draft
        # In a crew, each step is an agent's, and a thought says something.
        assert all(step["agent"] for step in self.steps), self.steps
        assert all(
            step["step"].get("content", "-").strip()
            for step in self.steps
            if step["step"]["type"] == "thought"
        )
        self._check_tasks()
        self._check_calls()

    def _check_tasks(self):
        own = [task["task_id"] for task in self.lines[0].get("tasks", [])]
        assert len(own) == len(set(own))
        started, ended, stepped = set(), [], set()
        for line, draft in self._in_order():
            task_id = draft.payload.get("task_id") if draft else line.get("task_id")
            if line.get("type") == "task_started":
                assert task_id not in started
                started.add(task_id)
            elif draft is not None and draft.channel is Channel.STEP and task_id is not None:
                assert task_id not in ended, "a step of a task that is over"
                assert task_id in started or line["type"] == "task_failed", (
                    "a step of a task that has not begun"
                )
                stepped.add(task_id)
            elif draft is not None and draft.channel is Channel.TASK:
                assert task_id not in ended, "a task is told twice"
                assert task_id in stepped, "a task without a step"
                ended.append(task_id)
        assert started | set(ended) <= set(own)
        completed = {task["task_id"]: task for task in self.tasks if task["status"] == "completed"}
        result = self.crew.get("result", {}).get("tasks", [])
        assert [task["task_id"] for task in result] == [task_id for task_id in own if task_id in completed]
        for task in result:
            assert task == {name: completed[task["task_id"]][name] for name in task}
            assert task.keys() >= {"task_id", "agent", "output", "execution_time"}
        if self.failed is None:
            assert {task["status"] for task in self.tasks} <= {"completed"}
            assert started == set(ended)

    def _check_calls(self):
        starts = [line["event_id"] for line in self.lines if line.get("type") == "tool_usage_started"]
        ends = [line["started_event_id"] for line in self.lines if "started_event_id" in line]
        assert sorted(starts) == sorted(ends)
        open_calls = {}
        for before, step, after in zip(
            [None, *self.steps], self.steps, [*self.steps[1:], None], strict=False
        ):
            kind, key = step["step"]["type"], (step.get("task_id"), step["agent"], step["step"].get("tool"))
            match kind:
                case "tool_call":
                    open_calls[key] = open_calls.get(key, 0) + 1
                case "tool_result":
                    open_calls[key] -= 1
                    assert open_calls[key] >= 0, "a result without a call"
                case "action":
                    assert after["step"]["type"] == "tool_call"
                    assert after["step"]["tool"] == step["step"]["tool"]
                case "observation":
                    assert before["step"]["type"] == "tool_result"
                    assert before["step"]["output"] == step["step"]["content"]
        assert not any(open_calls.values()), open_calls

    def _in_order(self):
        """The lines that become nothing, and each draft with the line that it is from."""
        mapping = Mapping("run")
        for line in self.lines:
            drafts = mapping.drafts(line) if line["op"] == "event" else []
            yield from ((line, draft) for draft in drafts or [None])


def _outcome(run_id, line):
    return webhooks.crew_completed(
        run_id,
        "completed" if line["op"] == "finished" else "error",
        1,
        output=line.get("output"),
        tasks=line["tasks"],
        error=line.get("error"),
        execution_time=line["seconds"],
        meta={"request": "r-1"},
    )


def _what(step):
    match step["type"]:
        case "tool_call":
            return step["tool"]
        case "tool_result":
            return step["output"]
        case _:
            return step["content"]
