"""What is signed with what, before, during and after a rotation."""

import gc

import pytest

from crewcast.core import signature
from crewcast.core.generation import EVERY_ORIGIN, Generation, Rotation
from crewcast.core.keyring import KeyRing
from crewcast.core.signature import (
    key_of,
    origin_key_pair,
    origin_secret,
    public_key_of,
    verify,
    verify_public,
)

A, B = "https://a.example", "https://b.example"
MASTER = bytes(range(32))
SECOND = 1_000_000
NOW = 1_750_000_000
SIGNED = ("evt_1", b"{}")


def fits(signatures: str, generation: int, origin: str = A, at: int = NOW) -> bool:
    key = key_of(origin_secret(MASTER, origin, generation))
    return verify(key, "evt_1", at, b"{}", signatures)


def fits_public(signatures: str, generation: int, origin: str = A, at: int = NOW) -> bool:
    key = public_key_of(origin_key_pair(MASTER, origin, generation).public)
    return verify_public(key, "evt_1", at, b"{}", signatures)


def sign(signer, at: int = NOW) -> str:
    return signer.sign("evt_1", at, b"{}")


def test_without_rotation_there_is_one_signature_by_the_origins_first_secret():
    signatures = sign(KeyRing(MASTER).signer(A))
    assert signatures == signature.sign(key_of(origin_secret(MASTER, A)), "evt_1", NOW, b"{}")


def test_both_schemes_sign_in_one_header():
    signatures = sign(KeyRing(MASTER, asymmetric=True).signer(A))
    assert [one.partition(",")[0] for one in signatures.split(" ")] == ["v1", "v1a"]
    assert fits(signatures, 0)
    assert fits_public(signatures, 0)
    assert not fits(signatures, 0, origin=B)
    assert not fits_public(signatures, 0, origin=B), "what one subscriber got is nothing to another"


def test_a_secret_that_ends_within_a_second_signs_nothing_more_in_it():
    ring = KeyRing(MASTER)
    moment = NOW * SECOND + 500_000
    ring.turn([Rotation(1, A, moment, moment)])
    signatures = sign(ring.signer(A))
    assert (fits(signatures, 0), fits(signatures, 1)) == (False, True)


def test_a_signer_in_use_follows_a_rotation_and_its_end():
    ring = KeyRing(MASTER, asymmetric=True)
    signer = ring.signer(A)
    sign(signer)
    ring.turn([Rotation(1, A, NOW * SECOND, (NOW + 60) * SECOND)])
    during = sign(signer, NOW + 59)
    assert [one.partition(",")[0] for one in during.split(" ")] == ["v1", "v1", "v1a", "v1a"]
    assert all(fits(during, n, at=NOW + 59) and fits_public(during, n, at=NOW + 59) for n in (0, 1))
    after = sign(signer, NOW + 60)
    assert len(after.split(" ")) == 2
    assert fits(after, 1, at=NOW + 60)
    assert not fits(after, 0, at=NOW + 60)


def test_a_rotation_of_all_is_one_of_each():
    ring = KeyRing(MASTER)
    ring.turn([Rotation(1, EVERY_ORIGIN, NOW * SECOND, NOW * SECOND)])
    for origin in (A, B):
        assert fits(sign(ring.signer(origin)), 1, origin)
        assert not fits(sign(ring.signer(origin)), 0, origin)


def test_what_was_read_before_a_known_rotation_takes_nothing_back():
    ring = KeyRing(MASTER, [Rotation(1, A, NOW * SECOND, NOW * SECOND)])
    ring.turn([])
    assert ring.generations(A)[0].number == 1


def test_what_was_read_again_changes_nothing(monkeypatch):
    known = [Rotation(1, A, NOW * SECOND, (NOW + 60) * SECOND)]
    ring = KeyRing(MASTER, known)
    signer = ring.signer(A)
    sign(signer)
    monkeypatch.setattr(ring, "generations", lambda _: pytest.fail("looked up without need"))
    ring.turn(known)
    sign(signer)


def test_signers_are_shared_while_they_are_held_and_no_longer():
    ring = KeyRing(MASTER)
    held = ring.signer(A)
    assert ring.signer(A) is held
    ring.signer(B)
    gc.collect()
    assert list(ring._signers) == [A]


def test_public_keys_are_those_of_the_generations_that_sign():
    rotations = [Rotation(1, A, NOW * SECOND, (NOW + 60) * SECOND)]
    ring = KeyRing(MASTER, rotations, asymmetric=True)
    newest, older = ring.public_keys(A, NOW * SECOND)
    assert newest.key == origin_key_pair(MASTER, A, 1).public
    assert newest.generation == Generation(1, NOW * SECOND, None)
    assert older.key == origin_key_pair(MASTER, A, 0).public
    assert older.generation == Generation(0, None, (NOW + 60) * SECOND)
    assert newest.id != older.id
    assert [one.key for one in ring.public_keys(A, (NOW + 60) * SECOND)] == [newest.key]
    assert KeyRing(MASTER, rotations).public_keys(A, NOW * SECOND) == []


@pytest.mark.parametrize("make", [origin_secret, lambda *args: origin_key_pair(*args).private])
def test_no_two_secrets_are_alike(make):
    kinds = [(master, origin, n) for master in (MASTER, bytes(32)) for origin in (A, B) for n in (0, 1, 12)]
    assert len({make(*kind) for kind in kinds}) == len(kinds)


def test_keys_are_looked_up_when_something_changes_and_not_for_each_signature(monkeypatch):
    ring = KeyRing(MASTER, [Rotation(1, A, NOW * SECOND, (NOW + 60) * SECOND)])
    looked = []
    generations = ring.generations
    monkeypatch.setattr(ring, "generations", lambda origin: looked.append(origin) or generations(origin))
    signer = ring.signer(A)
    for at in (NOW, NOW + 1, NOW + 59, NOW + 60, NOW + 61, NOW + 10_000_000):
        sign(signer, at)
    assert looked == [A, A], "at first, and when the older one ended"
