"""Pure values and rules. No clock, no randomness, no I/O: `now` and `roll` are arguments.

Times are integer microseconds since 1970 UTC, durations are integer microseconds.
"""
