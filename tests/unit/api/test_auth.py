"""Tokens and the Host header."""

import pytest

from crewcast.api.auth import Tokens, host_allowed
from crewcast.contract.problem import Problem


def test_the_right_token_has_a_name_that_does_not_give_it_away():
    name = Tokens("s3cret", "other").check("Bearer s3cret")
    assert name
    assert "s3cret" not in name
    assert name == Tokens("s3cret").check("bearer  s3cret ")
    assert name != Tokens("other").check("Bearer other")


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer S3CRET", "Basic s3cret", "s3cret", "Bearer s3cret x"]
)
def test_anything_else_is_401(given):
    with pytest.raises(Problem) as caught:
        Tokens("s3cret").check(given)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("a.localhost", True),
        ("127.0.0.1:8000", True),
        ("[::1]", True),
        ("[::1]:8000", True),
        ("192.168.1.5:8000", True),
        ("my-laptop:8000", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8000", False),
        ("", False),
        (":8000", False),
        ("[evil]:8000", False),
    ],
)
def test_only_names_that_no_stranger_can_point_here(header, allowed):
    assert host_allowed(header, frozenset({"my-laptop"})) == allowed
