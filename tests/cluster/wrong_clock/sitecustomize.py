"""On PYTHONPATH: a machine whose wall clock is wrong by WRONG_BY seconds. Python runs it before anything else."""

import os
import time

_by = float(os.environ.get("WRONG_BY", "0"))
_time, _time_ns, _clock = time.time, time.time_ns, time.clock_gettime
_clock_ns = time.clock_gettime_ns


def _is_wall(clock: int) -> bool:
    return clock == time.CLOCK_REALTIME


time.time = lambda: _time() + _by
time.time_ns = lambda: _time_ns() + int(_by * 1e9)
time.clock_gettime = lambda clock: _clock(clock) + (_by if _is_wall(clock) else 0)
time.clock_gettime_ns = lambda clock: _clock_ns(clock) + (int(_by * 1e9) if _is_wall(clock) else 0)
