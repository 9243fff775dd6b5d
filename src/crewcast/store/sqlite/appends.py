"""Appends to the log: of many runs at once, one statement for each table."""

from collections.abc import Sequence

from crewcast.core.event import Event
from crewcast.core.run import Run, RunState
from crewcast.store import rows
from crewcast.store.session import Values, finish
from crewcast.store.sqlite.committer import Unheld
from crewcast.store.sqlite.run_keys import RunKeys
from crewcast.store.sqlite.session import Immediate, Session
from crewcast.store.verbs import journal, reviews
from crewcast.store.verbs.append import Append, check_dense, work_of


def append(db: Session, rules: Immediate, keys: RunKeys, values: Sequence[Append]) -> list[bool]:
    """Which of the appends were written: all, or of a single one that is not held any more, none.

    Raises Unheld if one of several is not held: each is then to be repeated alone.
    """
    # The last state of each run is written, guarded by what the log was before the first append.
    latest: dict[str, tuple[Run, int, str]] = {}
    for run, events, token, *_ in values:
        before = run.seq - len(events)
        check_dense(run, events, before)
        earlier = latest.get(run.id)
        if earlier is None:
            latest[run.id] = run, before, token
            continue
        previous, guard, holder = earlier
        if previous.seq != before or previous.state is not RunState.RUNNING or holder != token:
            raise Unheld
        latest[run.id] = run, guard, token
    progress: list[Values] = []
    moves: list[Values] = []
    for run, guard, token in latest.values():
        row = (
            keys.of(run.id),
            token,
            guard,
            run.seq,
            run.total_tasks,
            run.completed_tasks,
            run.current_task,
            run.error,
            run.error_detail,
        )
        if run.state is RunState.RUNNING:
            progress.append(row)
        else:
            moves.append((*row, rows.STATE_WORDS[run.state], run.finished_at, run.worked))
    held = db.write_rows("append_progress", progress) + db.write_rows("append_move", moves)
    if held < len(latest):
        if len(values) == 1:
            return [False]
        raise Unheld
    _append_events(db, keys, values, latest)
    beside = [
        value
        for value in values
        if value.journal or value.review is not None or value.run.state is not RunState.RUNNING
    ]
    if beside:
        _append_beside(db, rules, keys, beside)
    return [True] * len(values)


def log(db: Session, keys: RunKeys, run: Run, events: Sequence[Event], before: int) -> None:
    """Events of a run that nobody holds, behind number `before`."""
    check_dense(run, events, before)
    _append_events(db, keys, [Append(run, events, "")], {run.id: (run, before, "")})


def _append_beside(db: Session, rules: Immediate, keys: RunKeys, values: Sequence[Append]) -> None:
    """What few appends bring: entries of the journal, and what a run asks, or does not ask any more."""
    finish(journal.write, rules, [(keys.of(value.run.id), value.journal) for value in values])
    for run, *_, review in values:
        if review is not None:
            reviews.check_asked(run, review)
            finish(reviews.ask, rules, keys.of(run.id), review)
        elif run.state is not RunState.RUNNING:
            # What a process asked in place, nobody answers any more.
            db.write("void_review", {"run": keys.of(run.id), "at": run.finished_at, "by": run.stop})


def _append_events(
    db: Session, keys: RunKeys, values: Sequence[Append], latest: dict[str, tuple[Run, int, str]]
) -> None:
    logged = [rows.event_row(keys.of(run.id), event) for run, events, *_ in values for event in events]
    if not logged:
        return
    db.write_rows("append_events", logged)
    for work in _one_per_run(work_of(logged)):
        db.write_rows("append_work", work)
    db.write_rows("append_dead", [(keys.of(run_id), before) for run_id, (_, before, _) in latest.items()])


def _one_per_run(newest: list[Values]) -> list[list[Values]]:
    """Lists in which no run comes twice: one statement cannot change a lane twice."""
    lists: list[list[Values]] = []
    seen: dict[int, int] = {}
    for row in newest:
        depth = seen.get(row[0], 0)
        seen[row[0]] = depth + 1
        if depth == len(lists):
            lists.append([])
        lists[depth].append(row)
    return lists
