"""Signatures against the published vectors and an independent implementation."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from crewcast.core.errors import SignatureError
from crewcast.core.signature import (
    MOST_CHECKED,
    KeyPair,
    hkdf,
    key_of,
    origin_key_pair,
    origin_secret,
    public_key_of,
    sign,
    signed_content,
    verify,
    verify_public,
)

# The fixed vector that every Standard Webhooks library embeds.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# Of the same message by ed25519: Svix's server has it in its tests, with the key pair of its README.
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ASYMMETRIC = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


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


# --- ed25519 ----------------------------------------------------------------------------------


def test_the_published_vector_of_ed25519():
    pair = KeyPair(base64.b64decode(PRIVATE.removeprefix("whsk_"))[:32])
    assert (pair.private, pair.public) == (PRIVATE, PUBLIC)
    assert pair.sign_content(signed_content(ID, TIMESTAMP, BODY)) == ASYMMETRIC
    assert verify_public(public_key_of(PUBLIC), ID, TIMESTAMP, BODY, ASYMMETRIC)


# RFC 8032, section 7.1: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032(seed, public, message, signature):
    pair = KeyPair(bytes.fromhex(seed))
    assert public_key_of(pair.public) == bytes.fromhex(public)
    assert (
        pair.sign_content(bytes.fromhex(message))
        == "v1a," + base64.b64encode(bytes.fromhex(signature)).decode()
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"body": BODY + b" "},
        {"message_id": ID + "x"},
        {"timestamp": TIMESTAMP + 1},
        {"signatures": ""},
        {"signatures": ASYMMETRIC.replace("v1a,", "v1,")},
        {"signatures": ASYMMETRIC.removeprefix("v1a,")},
        {"signatures": ASYMMETRIC[:-4]},
        {"signatures": "v1a,"},
        {"signatures": "v1a,é"},
        {"signatures": SIGNATURE},
    ],
)
def test_any_change_is_noticed_by_the_public_key(changed):
    given_ = {"message_id": ID, "timestamp": TIMESTAMP, "body": BODY, "signatures": ASYMMETRIC} | changed
    assert not verify_public(public_key_of(PUBLIC), **given_)


def test_one_of_several_is_enough_and_not_everything_is_looked_at():
    key = public_key_of(PUBLIC)
    other = "v1a," + base64.b64encode(bytes(64)).decode()
    few = " ".join([SIGNATURE, "v2,x", *[other] * (MOST_CHECKED - 1), ASYMMETRIC])
    assert verify_public(key, ID, TIMESTAMP, BODY, few)
    assert not verify_public(key, ID, TIMESTAMP, BODY, f"{other} {few}")


@pytest.mark.parametrize("key", ["", "whpk_", "whpk_$$$", "whpk_AAAA", PRIVATE.replace("whsk_", "whpk_")])
def test_a_bad_public_key_is_named(key):
    with pytest.raises(SignatureError, match="public key"):
        public_key_of(key)


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\x02" + bytes(31)])
def test_a_key_that_nobody_can_have_verifies_nothing(key):
    assert not verify_public(key, ID, TIMESTAMP, BODY, ASYMMETRIC)
    assert not verify_public(key, ID, TIMESTAMP, BODY, "v1a," + base64.b64encode(bytes(64)).decode())


def test_secrets_of_the_first_generation_are_as_they_ever_were():
    """Subscribers have them. HKDF of 32 zero bytes by an implementation that is not ours."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def derived(info: bytes) -> bytes:
        return HKDF(SHA256(), 32, None, info).derive(bytes(32))

    origin = "https://a.example"
    assert key_of(origin_secret(bytes(32), origin)) == derived(b"crewcast/webhook/v1/https://a.example")
    later = b"crewcast/webhook/v1/generation-3/https://a.example"
    assert key_of(origin_secret(bytes(32), origin, 3)) == derived(later)
    pair = KeyPair(derived(b"crewcast/webhook/v1a/https://a.example"))
    assert origin_key_pair(bytes(32), origin).private == pair.private
