"""The headers that a kickoff may ask for, and those that it may not."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.contract import asyncapi
from crewcast.contract.authentication import (
    HEADER_NAMES,
    MAX_HEADERS,
    MAX_LENGTH,
    Authentication,
    Unusable,
    parse,
)
from crewcast.contract.webhooks import auth_headers


def headers(*pairs):
    return {"strategy": "headers", "headers": dict(pairs)}


def unusable(value) -> Unusable:
    with pytest.raises(Unusable) as caught:
        parse(value)
    return caught.value


def test_the_headers_of_each_strategy():
    assert auth_headers(parse({"strategy": "bearer", "token": "t-1"})) == [(b"authorization", b"Bearer t-1")]
    # The example of RFC 7617.
    basic = {"strategy": "basic", "username": "Aladdin", "password": "open sesame"}
    assert auth_headers(parse(basic)) == [(b"authorization", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]
    both = headers(("X-API-Key", "k"), ("x-gitlab-token", "a b"))
    assert auth_headers(parse(both)) == [(b"x-api-key", b"k"), (b"x-gitlab-token", b"a b")]


def test_a_basic_password_is_any_text_in_utf_8():
    found = parse({"strategy": "basic", "username": "", "password": "pässwörd: ✓"})
    [(_, value)] = found.headers
    assert base64.b64decode(value.removeprefix("Basic ")).decode() == ":pässwörd: ✓"


def test_it_is_stored_and_read_and_never_shown():
    found = parse(headers(("X-API-Key", "s3cret"), ("Authorization", "s3cret")))
    assert Authentication.decode(found.encode()) == found
    assert repr(found) == "Authentication(x-api-key, authorization)"


def test_no_header_of_a_delivery_can_be_replaced():
    ours = {*asyncapi.DELIVERY_HEADERS, "content-type", "content-length", "transfer-encoding", "host", "user-agent",
            "connection", "cookie", "forwarded", "x-forwarded-for", "expect", "upgrade"}  # fmt: skip
    assert ours & HEADER_NAMES == set()
    for name in ours:
        assert unusable(headers((name, "x"))).place == "headers"
        assert unusable(headers((name.title(), "x"))).place == "headers"


@pytest.mark.parametrize(
    "value",
    [
        "",
        " x",
        "x ",
        "\tx",
        "a\nb",
        "a\rb",
        "a\0b",
        "a\x7fb",
        "ä",
        "x" * (MAX_LENGTH + 1),
        None,
        7,
        ["x"],
        True,
    ],
)
def test_a_value_is_visible_ascii(value):
    assert unusable({"strategy": "bearer", "token": value}).place == "token"
    assert unusable(headers(("x-api-key", value))).place == "headers.x-api-key"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (None, ""),
        ([], ""),
        ({}, "strategy"),
        ({"strategy": ["bearer"]}, "strategy"),
        ({"strategy": "Bearer", "token": "x"}, "strategy"),
        ({"strategy": "bearer", "token": "x", "username": "y"}, ""),
        ({"strategy": "basic", "username": "a:b", "password": "x"}, "username"),
        ({"strategy": "basic", "username": "a", "password": "x\ny"}, "password"),
        ({"strategy": "basic", "username": "a"}, "password"),
        ({"strategy": "basic", "username": "a", "password": "\ud800"}, "password"),
        ({"strategy": "basic", "username": "a" * (MAX_LENGTH // 4 + 1), "password": ""}, "username"),
        ({"strategy": "headers"}, "headers"),
        ({"strategy": "headers", "headers": {}}, "headers"),
        (headers(("x-api-key", "1"), ("X-API-KEY", "2")), "headers"),
        (headers(*((name, "x") for name in sorted(HEADER_NAMES)[: MAX_HEADERS + 1])), "headers"),
    ],
)
def test_what_is_refused_is_named(value, place):
    found = unusable(value)
    assert found.place == place
    assert found.reason.startswith(("must ", "has "))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(["strategy", "token", "username", "password", "headers", "X-API-Key"])
NEAR = st.dictionaries(NAMES, st.sampled_from(["bearer", "basic", "headers"]) | JSON, max_size=4)


@given(JSON | NEAR)
def test_any_value_is_understood_or_refused_and_what_is_sent_is_safe(value):
    try:
        found = parse(value)
    except Unusable:
        return
    for name, text in auth_headers(found):
        assert name.decode() in HEADER_NAMES
        assert all(0x20 <= byte <= 0x7E for byte in text)
