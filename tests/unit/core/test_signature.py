"""Signatures against the published vectors and an independent implementation."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from crewcast.core.errors import SignatureError
from crewcast.core.signature import hkdf, key_of, origin_secret, sign, verify

# The fixed vector that every Standard Webhooks library embeds.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_published_vector():
    assert sign(key_of(SECRET), ID, TIMESTAMP, BODY) == SIGNATURE
    assert verify(key_of(SECRET), ID, TIMESTAMP, BODY, SIGNATURE)


def test_one_of_several_signatures_is_enough():
    assert verify(key_of(SECRET), ID, TIMESTAMP, BODY, f"v2,abc v1,nonsense {SIGNATURE}")


@pytest.mark.parametrize(
    "changed",
    [
        {"body": BODY + b" "},
        {"message_id": ID + "x"},
        {"timestamp": TIMESTAMP + 1},
        {"signatures": ""},
        {"signatures": SIGNATURE[:-1]},
        {"signatures": "v1,é"},
    ],
)
def test_any_change_is_noticed(changed):
    given_ = {"message_id": ID, "timestamp": TIMESTAMP, "body": BODY, "signatures": SIGNATURE} | changed
    assert not verify(key_of(SECRET), **given_)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_$$$", "whsec_é"])
def test_a_bad_secret_is_named(secret):
    with pytest.raises(SignatureError, match="secret"):
        key_of(secret)


def test_missing_padding_and_prefix_are_forgiven():
    assert key_of("AAAA") == key_of("whsec_AAAA") == b"\0\0\0"
    assert key_of("whsec_AAA") == b"\0\0"


def test_hkdf_of_rfc_5869_case_3():
    # Appendix A.3: SHA-256, no salt, no info.
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert hkdf(b"\x0b" * 22, b"", 42).hex() == expected


def test_each_origin_has_its_own_secret():
    master = bytes(range(32))
    one, other = origin_secret(master, "https://a.example"), origin_secret(master, "https://b.example")
    assert one != other
    assert len(key_of(one)) == 32
    assert one != origin_secret(bytes(32), "https://a.example")


@given(
    st.binary(min_size=16, max_size=48), st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1)
)
def test_the_reference_library_signs_the_same(key, text):
    reference = Webhook(base64.b64encode(key).decode())
    moment = datetime.fromtimestamp(TIMESTAMP, UTC)
    assert reference.sign("evt_1", moment, text) == sign(key, "evt_1", TIMESTAMP, text.encode())
