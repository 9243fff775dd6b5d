"""The integer keys of runs."""

from collections.abc import Iterable

from crewcast.store.postgres.session import PostgresSession

MOST_KEYS = 65536  # of runs, remembered in memory


class KnownKeys:
    """A key is never another run's, so one that was seen stays true, also of a run that has been hidden since: what is
    written by it is guarded by a lease that is gone then.
    """

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}

    def note(self, run_id: str, key: int) -> None:
        if len(self._keys) >= MOST_KEYS:
            self._keys.clear()
        self._keys[run_id] = key

    async def of(self, db: PostgresSession, run_ids: Iterable[str]) -> dict[str, int]:
        """Of each run its key; 0, which none has, for one that is unknown."""
        known = {run_id: self._keys.get(run_id, 0) for run_id in run_ids}
        if unknown := [run_id for run_id, key in known.items() if not key]:
            for run_id, key in await db.all("keys_of_runs", {"ids": unknown}):
                known[run_id] = key
                self.note(run_id, key)
        return known


class LockingKeys:
    """For the rules in `store/verbs`: to ask for a run's key is to hold the run until the transaction ends."""

    def __init__(self, db: PostgresSession) -> None:
        self._db = db

    async def of(self, run_id: str) -> int:
        row = await self._db.first("key_of_run", {"id": run_id})
        return 0 if row is None else int(row[0])

    async def forget(self, run_id: str) -> None:
        """Keys are not given twice: nothing has to be forgotten."""
