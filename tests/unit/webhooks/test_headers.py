"""Headers out of whatever a framework has them in: each framework's own objects, made by the framework."""

from email.message import Message
from io import BytesIO

import pytest
from starlette.datastructures import Headers as StarletteHeaders
from werkzeug.datastructures import EnvironHeaders
from werkzeug.datastructures import Headers as WerkzeugHeaders

from crewcast.webhooks.headers import ours

SENT = {"Webhook-Id": "evt_1", "Webhook-Signature": "v1,a v1a,b", "CrewCast-Lane-Seq": "3"}
FOUND = {"webhook-id": "evt_1", "webhook-signature": "v1,a v1a,b", "crewcast-lane-seq": "3"}
RAW = [(name.lower().encode(), value.encode()) for name, value in SENT.items()]
ENVIRON = {
    "REQUEST_METHOD": "POST",
    "HTTP_HOST": "a.example",
    "HTTP_WEBHOOK_ID": "evt_1",
    "HTTP_WEBHOOK_SIGNATURE": "v1,a v1a,b",
    "HTTP_CREWCAST_LANE_SEQ": "3",
    "wsgi.input": BytesIO(),
}


def message():
    """As http.server has them."""
    found = Message()
    for name, value in SENT.items():
        found[name] = value
    return found


def django_headers():
    from django.http.request import HttpHeaders

    return HttpHeaders(ENVIRON)


@pytest.mark.parametrize(
    "headers",
    [
        SENT,
        {name.upper(): value for name, value in SENT.items()},
        dict(RAW),
        RAW,
        list(SENT.items()),
        iter(SENT.items()),
        message(),
        StarletteHeaders(raw=RAW),
        WerkzeugHeaders(list(SENT.items())),
        EnvironHeaders(ENVIRON),
        ENVIRON,
        django_headers(),
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_each_kind_is_understood(headers):
    assert ours(headers) == FOUND


def test_others_are_left_out():
    assert (
        ours(SENT | {"Cookie": "c", "X-Webhook-Id": "x", "authorization": "s3cret", "HTTP_COOKIE": "c"})
        == FOUND
    )


def test_of_a_header_that_comes_twice_the_first_counts():
    assert ours([*SENT.items(), ("webhook-id", "evt_2")]) == FOUND


def test_a_header_cannot_pretend_to_be_one_of_wsgi():
    """A client may send a header with the name HTTP_WEBHOOK_ID; it does not replace the real one."""
    assert ours({"HTTP_WEBHOOK_ID": "evt_2"} | SENT) == FOUND
    assert ours(ENVIRON | {"HTTP_HTTP_WEBHOOK_ID": "evt_2"}) == FOUND
