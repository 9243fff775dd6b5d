"""What a subscriber calls: every reason to refuse, and nothing imported but the standard library."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.core.signature import key_of, origin_key_pair, origin_secret, sign, signed_content
from crewcast.webhooks import CrewEvent, SignatureError, UnknownEvent, UsageError, verify

SECRET = origin_secret(bytes(32), "https://a.example")
OLD = origin_secret(bytes(31) + b"\1", "https://a.example")
NOW = 1_750_000_000
ROOT = __file__.rsplit("/tests/", 1)[0]
PAIR = origin_key_pair(bytes(32), "https://a.example")
OTHER = origin_key_pair(bytes(32), "https://b.example")
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
    for keys in ([OLD, SECRET], [SECRET, OLD], (key for key in (OLD, SECRET, OLD))):
        assert verify(keys, headers(), BODY.decode(), now=NOW).id == "evt_1"
    assert verify(SECRET, headers(**{"Crewcast-Replay": "true"}), BODY, now=NOW).replay


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"Webhook-Id": None}, "webhook-id is missing"),
        ({"Webhook-Signature": None}, "webhook-signature is missing"),
        ({"Webhook-Timestamp": None}, "webhook-timestamp is missing"),
        ({"Webhook-Timestamp": "soon"}, "not a number"),
        ({"Webhook-Timestamp": ""}, "not a number"),
        ({"Webhook-Timestamp": f" {NOW}"}, "not a number"),
        ({"Webhook-Timestamp": f"+{NOW}"}, "not a number"),
        ({"Webhook-Timestamp": "1_750_000_000"}, "not a number"),
        ({"Webhook-Timestamp": f"{NOW}.0"}, "not a number"),
        ({"Webhook-Timestamp": "٣" * 10}, "not a number"),
        ({"Webhook-Timestamp": "9" * 5000}, "not a number"),
        ({"Webhook-Id": "evt_é"}, "not ASCII"),
        ({"Webhook-Signature": "v1,\ud800"}, "no signature fits"),
        ({"Webhook-Signature": "v1," * 10_000}, "no signature fits"),
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


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"kickoff_id": 7}', b"[" * 100_000, b"\xff"])
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
                           env={"PYTHONPATH": "src"}, cwd=ROOT)  # fmt: skip
    assert found.stdout.strip() == "[]", found


def test_it_says_what_happened_in_the_documents_words():
    found = verify(SECRET, headers(), BODY, now=NOW)
    assert found.event == CrewEvent("k", "completed")
    assert found.pending is None
    assert verify(SECRET, headers(**{"Crewcast-Pending": "3"}), BODY, now=NOW).pending == 3


def test_no_header_makes_an_event_something_else():
    """They are not signed."""
    found = verify(SECRET, headers(**{"Crewcast-Event": "step", "Crewcast-Lane-Seq": "-1"}), BODY, now=NOW)
    assert isinstance(found.event, CrewEvent)
    assert found.lane_seq == 0
    assert isinstance(
        verify(SECRET, headers(b'{"kickoff_id":"k"}'), b'{"kickoff_id":"k"}', now=NOW).event, UnknownEvent
    )


def test_a_delivery_can_be_logged_without_its_payload():
    body = b'{"kickoff_id": "k", "status": "error", "error": "s3cret"}'
    assert "s3cret" not in repr(verify(SECRET, headers(body), body, now=NOW))


# --- keys -------------------------------------------------------------------------------------


def doubly(body: bytes = BODY, *pairs, at: int = NOW) -> dict[str, str]:
    """Signed by the secret and by each of the key pairs."""
    content = signed_content("evt_1", at, body)
    signatures = [sign(key_of(SECRET), "evt_1", at, body), *(pair.sign_content(content) for pair in pairs)]
    return headers(body, at=at, **{"Webhook-Signature": " ".join(signatures)})


def test_a_public_key_verifies_without_a_secret():
    assert verify(PAIR.public, doubly(BODY, PAIR), BODY, now=NOW).kickoff_id == "k"
    assert verify([OTHER.public, PAIR.public], doubly(BODY, PAIR), BODY, now=NOW)
    assert verify([PAIR.public, OTHER.public, OLD], doubly(BODY, PAIR), BODY, now=NOW)
    assert verify([OLD, PAIR.public], doubly(BODY, OTHER, PAIR), BODY, now=NOW)


@pytest.mark.parametrize("sent", [doubly(BODY), doubly(BODY, OTHER), doubly(BODY + b" ", PAIR)])
def test_a_public_key_refuses_what_its_pair_did_not_sign(sent):
    with pytest.raises(SignatureError, match="no signature fits"):
        verify(PAIR.public, sent, BODY, now=NOW)


def test_an_old_signature_by_the_pair_is_refused_too():
    with pytest.raises(SignatureError, match="300 s away"):
        verify(PAIR.public, doubly(BODY, PAIR), BODY, now=NOW + 301)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([], "no key"),
        ("", "secret is empty"),
        (["whsec_"], "secret is empty"),
        ("whsec_$$$", "not base64"),
        ([SECRET, "whpk_AAAA"], "32"),
        (PAIR.private, "whpk_"),
    ],
)
def test_a_key_that_is_none_is_no_fault_of_the_delivery(keys, said):
    """401 would make a dead letter of it within minutes; as a 500 it comes again once the key is mended."""
    with pytest.raises(UsageError, match=said) as caught:
        verify(keys, headers(), BODY, now=NOW)
    assert PAIR.private not in str(caught.value)


def without_packages(code: str) -> subprocess.CompletedProcess[str]:
    """In a Python that has nothing but its standard library and the source."""
    return subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True,
                          env={"PYTHONPATH": "src"}, cwd=ROOT)  # fmt: skip


def test_without_its_package_a_public_key_is_told_what_to_install():
    code = (
        "from crewcast.webhooks import verify, UsageError\n"
        f"sent = {doubly(BODY, PAIR)!r}\n"
        f"assert verify({SECRET!r}, sent, {BODY!r}, now={NOW}).id == 'evt_1'\n"
        f"try: verify([{SECRET!r}, {PAIR.public!r}], sent, {BODY!r}, now={NOW})\n"
        "except UsageError as e: print(e)"
    )
    assert "pip install 'crewcast[ed25519]'" in without_packages(code).stdout


# --- anything ---------------------------------------------------------------------------------

TEXTS = st.text(max_size=30) | st.sampled_from(
    [SECRET, "v1,", "v1a,", f"v1a,{'A' * 86}==", str(NOW), "evt_1"]
)
OURS = st.sampled_from(list(headers()))


@given(st.dictionaries(OURS, TEXTS), st.binary(max_size=60), st.sampled_from([SECRET, PAIR.public]))
def test_nothing_unsigned_passes_and_nothing_breaks(changed, body, key):
    with pytest.raises(SignatureError):
        verify(key, headers(OLD.encode(), OLD) | changed, body, now=NOW)


@given(st.binary(max_size=60))
def test_whatever_is_signed_is_an_event_or_refused(body):
    try:
        verify(SECRET, headers(body), body, now=NOW)
    except SignatureError as e:
        assert "signed but" in str(e)
