"""The integer keys of runs, looked up once per process and run."""

from crewcast.store.sqlite.session import Session

MOST_KEYS = 65536  # of runs, remembered in memory


class RunKeys:
    def __init__(self, db: Session) -> None:
        self._db = db
        self._keys: dict[str, int] = {}

    def of(self, run_id: str) -> int:
        """The run's key; 0, which none has, for a run that is unknown or hidden."""
        key = self._keys.get(run_id)
        if key is None:
            row = self._db.first("key_of_run", {"id": run_id})
            if row is None:
                return 0
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            key = self._keys[run_id] = row[0]
        return key

    def forget(self, run_id: str | None = None) -> None:
        """One that was hidden, since its key may go to another run; or all, after a rollback."""
        if run_id is None:
            self._keys.clear()
        else:
            self._keys.pop(run_id, None)


class ImmediateKeys:
    """The same for the rules in `store/verbs`."""

    def __init__(self, keys: RunKeys) -> None:
        self._keys = keys

    async def of(self, run_id: str) -> int:
        return self._keys.of(run_id)

    async def forget(self, run_id: str) -> None:
        self._keys.forget(run_id)
