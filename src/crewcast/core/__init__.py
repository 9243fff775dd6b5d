"""Pure values and rules. No clock, no randomness, no I/O: `now` and `roll` are arguments.

What flows by the thousand (runs, events, lanes, attempts) is a frozen msgspec Struct: made and replaced in a
tenth of a dataclass's time. `errors` and `signature` stay with the standard library: a subscriber installs them.

Times are integer microseconds since 1970 UTC, durations are integer microseconds.
"""
