"""Standard Webhooks: the cases that its own libraries are tested with, and both directions against the one on PyPI."""

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from crewcast.core.keyring import KeyRing
from crewcast.webhooks import SignatureError, UsageError, verify

# The message of the specification's own tests. It is no event of a run, so the signature is all that fits.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ASYMMETRIC = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
WRONG = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
FITS, DOES_NOT = "signed but has no kickoff_id", "no signature fits"


def headers(**changed) -> dict[str, str]:
    found = {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE}
    found |= {name.replace("_", "-"): value for name, value in changed.items()}
    return {name: value for name, value in found.items() if value is not None}


def said(keys, sent, *, body=BODY, now=AT) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(keys, sent, body, now=now)
    return str(caught.value)


@pytest.mark.parametrize(
    "signatures",
    [SIGNATURE, f"{WRONG} v2,xxxx {SIGNATURE} v2,{SIGNATURE[3:]}", f"{ASYMMETRIC} {SIGNATURE}"],
)
def test_a_signature_that_fits_is_enough(signatures):
    assert FITS in said(SECRET, headers(webhook_signature=signatures))


def test_and_so_is_one_of_ed25519():
    for signatures in (ASYMMETRIC, f"{SIGNATURE} {ASYMMETRIC}"):
        assert FITS in said(PUBLIC, headers(webhook_signature=signatures))


@pytest.mark.parametrize(
    "signatures", [WRONG, SIGNATURE[3:], SIGNATURE.replace("v1", "v2"), SIGNATURE[:-2], "v1,", "v1", ","]
)
def test_another_does_not_fit(signatures):
    assert DOES_NOT in said(SECRET, headers(webhook_signature=signatures))
    assert DOES_NOT in said(PUBLIC, headers(webhook_signature=signatures))


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(name):
    assert f"{name} is missing" in said(SECRET, headers(**{name: None}))


def test_the_timestamp_is_near_to_now():
    minutes = 5 * 60
    assert FITS in said(SECRET, headers(), now=AT + minutes)
    assert FITS in said(SECRET, headers(), now=AT - minutes)
    assert "away from" in said(SECRET, headers(), now=AT + minutes + 1)
    assert "away from" in said(SECRET, headers(), now=AT - minutes - 1)
    assert "not a number" in said(SECRET, headers(webhook_timestamp="hello"))


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
def test_a_secret_may_lack_its_prefix(secret):
    assert FITS in said(secret, headers())


@pytest.mark.parametrize("length", [23, 22])
def test_a_secret_may_lack_its_padding(length):
    key = base64.b64encode(b"k" * length).decode()
    assert key.endswith("=")
    now = datetime.now(UTC)
    signature = Webhook(key).sign(ID, now, BODY)
    sent = headers(webhook_timestamp=str(int(now.timestamp())), webhook_signature=signature)
    assert FITS in said(f"whsec_{key.rstrip('=')}", sent, now=now.timestamp())


@pytest.mark.parametrize("secret", ["", "whsec_"])
def test_an_empty_secret_is_refused(secret):
    with pytest.raises(UsageError, match="empty"):
        verify(secret, headers(), BODY, now=AT)


# --- both directions --------------------------------------------------------------------------

MASTER = bytes(range(32))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(TEXTS)
def test_what_the_library_signs_is_taken(text):
    ring = KeyRing(MASTER)
    secret = ring.secret("https://a.example", 0)
    body = json.dumps({"kickoff_id": text}, ensure_ascii=False)
    now = datetime.now(UTC)
    sent = headers(
        webhook_timestamp=str(int(now.timestamp())), webhook_signature=Webhook(secret).sign(ID, now, body)
    )
    assert verify(secret, sent, body.encode()).kickoff_id == text


@given(TEXTS, st.booleans())
def test_what_we_sign_the_library_takes(text, asymmetric):
    ring = KeyRing(MASTER, asymmetric=asymmetric)
    body = json.dumps({"kickoff_id": text}, ensure_ascii=False).encode()
    now = int(time.time())
    sent = headers(
        webhook_timestamp=str(now), webhook_signature=ring.signer("https://a.example").sign(ID, now, body)
    )
    assert Webhook(ring.secret("https://a.example", 0)).verify(body, sent) == {"kickoff_id": text}
    with pytest.raises(WebhookVerificationError):
        Webhook(ring.secret("https://b.example", 0)).verify(body, sent)
