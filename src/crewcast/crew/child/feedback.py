"""A person judges what a method of a flow returned: CrewAI's `@human_feedback`, in another process than the method's.

What the method returned and what it changed in the flow's state is journalled with the question. In a process that goes
on, the method itself is not run again: the flow has the output and the state that were judged. Where they have no JSON,
and where the method has put something into the flow itself beside its state, the process waits for the decision.

How a decision becomes what CrewAI is given:

- Words are the feedback as they are. With `emit`, words that are one of the outcomes take that one; others are CrewAI's
  model to classify, as they are at a terminal, whether they came with an approval or with a rejection.
- An approval without words is an empty feedback, as Enter is at a terminal. With `emit` it takes the first outcome that
  is named like one (`approved`, `accept`, `ok`); else `default_outcome`; else the first; none of the last two where it
  is named like a rejection.
- A rejection without words is the feedback "rejected". With `emit` it takes the first outcome that is named like one
  (`rejected`, `declined`), then one that sends back (`revise`, `needs_changes`); else `default_outcome`; else the last;
  none of the last two where it is named like an approval and there is another.
- The words of an approval that are not to be passed on (`pass_feedback`) choose the outcome and are then left out.
"""

import contextlib
import datetime as dt
import importlib
import inspect
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from . import flows
from .extractors import Refused
from .flow_journal import FlowJournal, method_key
from .flows import MethodCall
from .outputs import Entries
from .packing import Packed, Unpackable, pack, unpack
from .reviews import Paused
from .wire import as_text, text

APPROVING = frozenset(
    (
        "approve",
        "approved",
        "approval",
        "accept",
        "accepted",
        "ok",
        "okay",
        "yes",
        "pass",
        "passed",
        "confirm",
        "confirmed",
        "publish",
        "published",
        "continue",
        "proceed",
        "good",
    )
)
REJECTING = frozenset(
    (
        "reject",
        "rejected",
        "rejection",
        "decline",
        "declined",
        "deny",
        "denied",
        "refuse",
        "refused",
        "no",
        "not",
        "fail",
        "failed",
    )
)
RETURNING = frozenset(
    (
        "revise",
        "revised",
        "revision",
        "revisions",
        "change",
        "changes",
        "edit",
        "edits",
        "rework",
        "rewrite",
        "redo",
        "retry",
        "again",
        "improve",
        "needs",
        "cancel",
        "stop",
        "discard",
    )
)


def outcome_of(words: str, outcomes: Sequence[str], default: "str | None", *, approves: bool) -> "str | None":
    """The outcome that a decision takes without a model; None if one must say what the words mean."""
    if words:
        return next((each for each in outcomes if each.lower() == words.lower()), None)
    named = {each: frozenset(re.findall("[a-z]+", each.lower())) for each in outcomes}
    for_it = [
        each for each in outcomes if named[each] & APPROVING and not named[each] & (REJECTING | RETURNING)
    ]
    against = [each for each in outcomes if named[each] & REJECTING]
    back = [each for each in outcomes if named[each] & RETURNING and each not in against]
    if approves:
        fallback = [
            each for each in (default, *outcomes) if each is not None and each not in (*against, *back)
        ]
        return [*for_it, *fallback, *outcomes][0]
    fallback = [each for each in (default, *reversed(outcomes)) if each is not None and each not in for_it]
    return [*against, *back, *fallback, *outcomes][0]


def words_of(decision: Entries, *, for_outcome: bool = False) -> str:
    """What CrewAI is told that the person has said."""
    words = text(decision.get("feedback") or "").strip()
    if for_outcome:
        return words
    if decision["approve"]:
        return words if decision.get("pass_feedback", True) else ""
    return words or "rejected"


# One of CrewAI's functions.
Own = Callable[..., Any]


class Feedback:
    """Asks for what the methods of the run's flow ask."""

    def __init__(self, journal: FlowJournal) -> None:
        self._journal = journal
        self._flow = journal.flow
        # What the state and the flow were before a method, by the execution.
        self._before: dict[MethodCall, tuple[dict[str, _Value], Entries]] = {}
        self._decided: dict[MethodCall, Entries] = {}
        # What was judged, or None where no other process could have it.
        self._judged: dict[MethodCall, Entries | None] = {}

    def install(self) -> None:
        """From now on, CrewAI asks through this."""
        flow_class = importlib.import_module("crewai.flow.flow").Flow
        for name, replace in (
            ("_execute_method", self._execute),
            ("_run_human_feedback_step", self._step),
            ("_resolve_feedback_provider", self._resolve),
            ("_finalize_human_feedback", self._finalize),
        ):
            setattr(flow_class, name, replace(getattr(flow_class, name)))

    # In place of CrewAI's own, which each of these is given. A flow inside a method of the run's has its own alone.

    def _execute(self, execute: Own) -> Own:
        asking = frozenset(flows.asking(self._flow))

        async def execute_or_answer(flow: Any, name: Any, method: Any, *args: Any, **named: Any) -> Any:
            if flow is self._flow and text(name) in asking:
                method = self._around(method)
            return await execute(flow, name, method, *args, **named)

        return execute_or_answer

    def _step(self, step: Own) -> Own:
        async def ask_or_answer(flow: Any, name: Any, definition: Any, output: Any) -> Any:
            if flow is not self._flow:
                return await step(flow, name, definition, output)
            call = self._journal.sink.methods.current()
            assert call is not None
            # What a person judges is a task, also where nothing but crews has worked.
            call.stepped = True
            result = self._settled(call, name, definition, output)
            if result is None and (decision := self._taken(call)) is not None:
                result = await self._resumed(call, decision, name, definition, output)
            if result is None:
                value = await step(flow, name, definition, output)
                result = flow._human_feedback_method_outputs.get(name, value)  # noqa: SLF001
            elif definition.emit:
                flow._human_feedback_method_outputs[name] = result  # noqa: SLF001
            self._settle(call, result)
            return result.outcome if definition.emit else result

        return ask_or_answer

    def _resolve(self, resolve: Own) -> Own:
        def ask_through_this(flow: Any, definition: Any) -> Any:
            provider = resolve(flow, definition)
            at_a_terminal = provider is None or type(provider).__name__ == "ConsoleProvider"
            return self if at_a_terminal else provider

        return ask_through_this

    def _finalize(self, finalize: Own) -> Own:
        async def finalize_as_decided(flow: Any, **named: Any) -> Any:
            call = self._journal.sink.methods.current() if flow is self._flow else None
            decision = self._decided.get(call) if call is not None else None
            if decision is None:
                return await finalize(flow, **named)
            words = words_of(decision, for_outcome=True)
            if named["emit"]:
                chosen = outcome_of(
                    words, named["emit"], named["default_outcome"], approves=decision["approve"]
                )
                # Without feedback CrewAI takes the default, and asks no model.
                more = (
                    {"raw_feedback": words}
                    if chosen is None
                    else {"raw_feedback": "", "default_outcome": chosen}
                )
                named = {**named, **more}
            result = await finalize(flow, **named)
            result.feedback = words_of(decision)
            return result

        return finalize_as_decided

    # What CrewAI calls

    def request_feedback(self, context: Any, flow: Any) -> str:
        """Called in a thread of its own. Leaves the process, or waits in it for the decision."""
        name = text(context.method_name)
        journal = self._journal
        call = journal.sink.methods.current() if flow is self._flow else None
        if call is None:
            refused = Refused("@human_feedback is not supported yet; it is set on: " + name)
            journal.sink.end(refused)
            raise refused
        where = method_key(call)
        judged = self._snapshot(call, context.method_output)
        known = journal.entries.get(where + "/judged") or {}
        line: Entries = {
            "op": "paused",
            "task_id": call.task_id(),
            "index": journal.book.position(call.task_id()),
            "uuid": known.get("uuid") or str(uuid.uuid4()),
            "agent": call.agent() or "",
            "output": as_text(context.method_output),
            "message": text(context.message),
            "outcomes": [text(each) for each in context.emit or []],
            "journal": {},
        }
        self._judged[call] = judged
        if judged is None or journal.is_held(where):
            decision = self._in_place(where, line)
        else:
            entries = {
                **journal.known(call),
                where + "/judged": {**judged, "uuid": line["uuid"], "seconds": call.seconds()},
            }
            paused = Paused(journal.paused(where, line, entries))
            journal.sink.end(paused)
            raise paused
        self._decided[call] = decision
        return words_of(decision)

    def _in_place(self, where: str, line: Entries) -> Entries:
        self._journal.stuck.add(where)
        try:
            return self._journal.wait(line)
        finally:
            self._journal.stuck.discard(where)

    # What it does

    def _around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, unless what it returned was judged: then it returns that."""

        def run(*args: Any, **named: Any) -> Any:
            call = self._journal.sink.methods.current()
            assert call is not None
            judged = self._journal.entries.get(method_key(call) + "/judged")
            if judged is None:
                self._before[call] = (self._state(), dict(vars(self._flow)))
                return method(*args, **named)
            call.worked = judged["seconds"]
            call.agents.update(judged["agents"])
            self._judged[call] = judged
            try:
                self._change(judged)
                return unpack(judged["output"])
            except Exception as error:
                raise self._journal.refuse(
                    "what " + call.name + " returned is not understood: " + text(error)
                ) from error

        async def arun(*args: Any, **named: Any) -> Any:
            value = run(*args, **named)
            return await value if inspect.isawaitable(value) else value

        return arun if inspect.iscoroutinefunction(method) else run

    def _state(self) -> "dict[str, _Value]":
        state = self._flow._state  # noqa: SLF001
        if not isinstance(state, dict):
            names = [*type(state).model_fields, *(state.model_extra or {})]
            state = {name: getattr(state, name) for name in names}
        return {name: _Value(value) for name, value in state.items()}

    def _snapshot(self, call: MethodCall, output: Any) -> "Entries | None":
        """What the method has made and changed, as JSON; None if that is not all JSON."""
        known = self._judged.get(call)
        if known is not None:
            return known
        before, own = self._before.pop(call)
        fields = getattr(type(self._flow), "model_fields", {})
        for name, value in vars(self._flow).items():
            if name not in fields and own.get(name, own) is not value:
                return None
        after = self._state()
        changed = {name: value for name, value in after.items() if not value.equals(before.get(name))}
        try:
            return {
                "output": pack(output),
                "state": {name: value.packed() for name, value in changed.items()},
                "gone": [name for name in before if name not in after],
                "agents": sorted(call.agents),
            }
        except Unpackable:
            return None

    def _change(self, judged: Entries) -> None:
        state = self._flow._state  # noqa: SLF001
        for name, value in judged["state"].items():
            if isinstance(state, dict):
                state[name] = unpack(value)
            else:
                setattr(state, name, unpack(value))
        for name in judged["gone"]:
            state.pop(name, None)

    def _taken(self, call: MethodCall) -> "Entries | None":
        where = method_key(call)
        if where + "/judged" not in self._journal.entries:
            return None
        return self._journal.entries.get(where + "/decision")

    def _settled(self, call: MethodCall, name: str, definition: Any, output: Any) -> Any:
        """What an earlier process made of a decision; None if nothing yet."""
        settled = self._journal.entries.get(method_key(call) + "/settled")
        if settled is None:
            return None
        result = importlib.import_module("crewai.flow.human_feedback").HumanFeedbackResult(
            output=output,
            feedback=settled["feedback"],
            outcome=settled["outcome"],
            timestamp=dt.datetime.fromisoformat(settled["timestamp"]),
            method_name=name,
            metadata=definition.metadata or {},
        )
        self._flow.human_feedback_history.append(result)
        self._flow.last_human_feedback = result
        return result

    async def _resumed(
        self, call: MethodCall, decision: Entries, name: str, definition: Any, output: Any
    ) -> Any:
        """As CrewAI resumes a flow of its own: what comes after the answer."""
        self._decided[call] = decision
        words, flow = words_of(decision), self._flow
        result = await flow._finalize_human_feedback(  # noqa: SLF001
            method_name=name,
            method_output=output,
            raw_feedback=words,
            emit=definition.emit,
            default_outcome=definition.default_outcome,
            llm=definition.llm,
            metadata=definition.metadata or {},
        )
        await flow._store_feedback_lessons(definition, name, output, words, definition.llm)  # noqa: SLF001
        return result

    def _settle(self, call: MethodCall, result: Any) -> None:
        """No other process asks again, or has a model classify the words again."""
        call.judged = (result.output,)
        self._decided.pop(call, None)
        judged, where = self._judged.pop(call, None), method_key(call)
        if judged is None or where + "/settled" in self._journal.entries:
            return
        entries: Entries = {
            **self._journal.known(call),
            where + "/settled": {
                "feedback": result.feedback,
                "outcome": result.outcome,
                "timestamp": result.timestamp.isoformat(),
            },
            where + "/decision": None,
        }
        if where + "/judged" not in self._journal.entries:
            entries[where + "/judged"] = {**judged, "uuid": str(uuid.uuid4()), "seconds": call.seconds()}
        self._journal.keep(entries)


class _Value:
    """A part of the state, as it was then: what is inside may change."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._packed: Packed | None = None
        with contextlib.suppress(Unpackable):
            self._packed = pack(value)

    def packed(self) -> Packed:
        if self._packed is None:
            raise Unpackable
        return self._packed

    def equals(self, other: "_Value | None") -> bool:
        """Of what has no JSON, only whether it is the same object can be known."""
        if self._packed is None:
            return other is not None and other.is_no_json() and self.value is other.value
        return other is not None and not other.is_no_json() and self._packed == other.packed()

    def is_no_json(self) -> bool:
        return self._packed is None
