"""What a subscriber calls: every reason to refuse, and nothing imported but the standard library."""

import json
import subprocess
import sys

import pytest

from crewcast.core.signature import key_of, origin_secret, sign
from crewcast.webhooks import SignatureError, verify

SECRET = origin_secret(bytes(32), "https://a.example")
OLD = origin_secret(bytes(31) + b"\1", "https://a.example")
NOW = 1_750_000_000
BODY = json.dumps({"kickoff_id": "k", "status": "completed"}).encode()


def headers(body: bytes = BODY, secret: str = SECRET, at: int = NOW, **changed) -> dict[str, str]:
    listed = {
        "Webhook-Id": "evt_1",
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": sign(key_of(secret), "evt_1", at, body),
        "Crewcast-Event": "crew.completed",
        "Crewcast-Lane-Seq": "3",
        "Crewcast-Run-Seq": "14",
        "Crewcast-Run-Attempt": "1",
        "Crewcast-Delivery-Attempt": "2",
    }
    return {name: value for name, value in (listed | changed).items() if value is not None}


def test_a_delivery_says_what_it_is():
    found = verify(SECRET, headers(), BODY, now=NOW)
    assert (found.id, found.kickoff_id, found.type, found.lane_seq) == ("evt_1", "k", "crew.completed", 3)
    assert (found.run_seq, found.run_attempt, found.delivery_attempt, found.replay) == (14, 1, 2, False)
    assert found.payload["status"] == "completed"


def test_text_bodies_and_several_secrets_do_too():
    assert verify([OLD, SECRET], headers(), BODY.decode(), now=NOW).id == "evt_1"
    assert verify(SECRET, headers(**{"Crewcast-Replay": "true"}), BODY, now=NOW).replay


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"Webhook-Id": None}, "webhook-id is missing"),
        ({"Webhook-Signature": None}, "webhook-signature is missing"),
        ({"Webhook-Timestamp": None}, "webhook-timestamp is missing"),
        ({"Webhook-Timestamp": "soon"}, "not a number"),
        ({"Webhook-Id": "evt_2"}, "no signature fits"),
        ({"Webhook-Signature": "v1,AAAA"}, "no signature fits"),
        ({"Webhook-Signature": ""}, "no signature fits"),
    ],
)
def test_what_is_not_signed_so_is_refused(changed, said):
    with pytest.raises(SignatureError, match=said):
        verify(SECRET, headers(**changed), BODY, now=NOW)


@pytest.mark.parametrize("skew", [-301, 301])
def test_an_old_or_early_timestamp_is_refused(skew):
    with pytest.raises(SignatureError, match="300 s away"):
        verify(SECRET, headers(), BODY, now=NOW + skew)
    assert verify(SECRET, headers(), BODY, now=NOW + skew, tolerance=400)


def test_another_secret_or_body_is_refused():
    with pytest.raises(SignatureError, match="no signature fits"):
        verify(OLD, headers(), BODY, now=NOW)
    with pytest.raises(SignatureError, match="no signature fits"):
        verify(SECRET, headers(), BODY + b" ", now=NOW)


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"kickoff_id": 7}'])
def test_a_signed_body_that_is_no_event_is_refused(body):
    with pytest.raises(SignatureError, match="signed but"):
        verify(SECRET, headers(body), body, now=NOW)


def test_a_subscriber_needs_nothing_but_the_standard_library():
    code = (
        "import sys, crewcast.webhooks\n"
        "named = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(named - set(sys.stdlib_module_names) - {'crewcast', '__main__'}))"
    )
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True,
                           env={"PYTHONPATH": "src"}, cwd=__file__.rsplit("/tests/", 1)[0])  # fmt: skip
    assert found.stdout.strip() == "[]", found
