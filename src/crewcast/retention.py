"""Old runs go, in slices with pauses between them: deliveries have the disk to themselves most of the time."""

import asyncio
import logging
import shutil
from pathlib import Path

from crewcast.clock import Clock
from crewcast.core.backoff import MINUTE, SECOND
from crewcast.core.errors import StoreError
from crewcast.store.protocol import Store, level

log = logging.getLogger("crewcast")

EVERY = 1 * MINUTE
PAUSE = SECOND // 10
RUNS_AT_ONCE = 100
ROWS_AT_ONCE = 1000
FOREVER = 1 << 62


class Retention:
    """Removes runs that ended `keep` microseconds ago (0: none) and have nothing left to deliver, what was
    deleted by hand, and the log files of both (`<run id>.log` in `logs`). What a run stores for itself while it is at
    work (`storage/<run id>`) goes with its end; that of one which ended while it waited goes here.

    Log files of runs that nobody knows are looked for at the start, and with `look_again` so often after that: where
    nodes share a store, another one may have removed the run. None: never.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keep: int,
        logs: Path,
        storage: Path,
        *,
        look_again: int | None = FOREVER,
    ) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self._logs = logs
        self._storage = storage
        self._look_again = look_again

    async def run(self) -> None:
        """Until cancelled. An error of the store is waited out."""
        never = asyncio.Event()
        look_at = self._clock.now()
        while True:
            try:
                if self._look_again is not None and look_at <= self._clock.now():
                    await self.remove_strays()
                    look_at = self._clock.now() + self._look_again
                await self.remove()
            except StoreError as e:
                log.log(level(e), "old runs cannot be removed: %s", e)
            except OSError as e:
                log.error("old runs cannot be removed: %s", e)
            await self._clock.wait(never, EVERY)

    async def remove(self) -> None:
        """Removes all that may go by now."""
        if self._keep:
            before = self._clock.now() - self._keep
            while run_ids := await self._store.expire(before, RUNS_AT_ONCE):
                await asyncio.to_thread(self._unlink, run_ids)
                log.info("%d runs are older than they are kept and were removed", len(run_ids))
                await self._pause()
        while await self._store.sweep(ROWS_AT_ONCE):
            await self._pause()
        for run_id in await asyncio.to_thread(self._stored):
            run = await self._store.run(run_id)
            if run is None or run.state.ended:
                await asyncio.to_thread(shutil.rmtree, self._storage / run_id, ignore_errors=True)

    async def remove_strays(self) -> None:
        """Log files of runs that nobody knows: a crash came between a run's end and its file's, or another node
        removed the run.
        """
        for number, run_id in enumerate(await asyncio.to_thread(self._logged), 1):
            if await self._store.run(run_id) is None:
                await asyncio.to_thread(self._unlink, [run_id])
            if number % RUNS_AT_ONCE == 0:
                await self._pause()

    def _logged(self) -> list[str]:
        return [file.stem for file in self._logs.glob("*.log")]

    def _stored(self) -> list[str]:
        return [folder.name for folder in self._storage.glob("*")]

    def _unlink(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            (self._logs / f"{run_id}.log").unlink(missing_ok=True)

    async def _pause(self) -> None:
        await self._clock.wait(asyncio.Event(), PAUSE)
