"""What a run's next process has to know: entries by name, written with the events that made them."""

from collections.abc import Iterable, Mapping

from crewcast.store.session import Session

Entries = Mapping[str, bytes | None]


async def write(db: Session, changes: Iterable[tuple[int, Entries]]) -> None:
    """`changes` are runs' keys with what is written or, with None, removed, in that order: the last one counts."""
    latest: dict[tuple[int, str], bytes | None] = {}
    for run, entries in changes:
        for name, value in entries.items():
            latest[run, name] = value
    await db.write_rows("drop_journal", [place for place, value in latest.items() if value is None])
    await db.write_rows(
        "write_journal", [(*place, value) for place, value in latest.items() if value is not None]
    )
