"""Identities: derived or made from arguments, never drawn here."""

import uuid


def run_id(now: int, random: bytes) -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds from `now`, then 74 of the 80 bits of `random`.

    Ids made later sort later, so lists page by id and indexes grow at their end.
    """
    if len(random) != 10:
        raise ValueError(f"a run id needs 10 random bytes, got {len(random)}")
    bits = (now // 1000) << 80 | int.from_bytes(random)
    bits &= ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=bits | 0x7 << 76 | 0x2 << 62))


def event_id(run_id: str, seq: int) -> str:
    """The `webhook-id` of an event: the same on every delivery, retry and replay."""
    return f"evt_{run_id.replace('-', '')}_{seq}"
