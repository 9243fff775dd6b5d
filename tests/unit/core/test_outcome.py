"""Which outcomes tell something about the origin."""

import pytest

from crewcast.core.outcome import KINDS, OURS, SETTLED_REFUSALS, Outcome


def status(code: int) -> Outcome:
    return Outcome("ok" if code < 300 else f"status:{code}", code)


@pytest.mark.parametrize(
    "kind",
    ["dns", "refused", "unreachable", "tls", "timeout:connect", "timeout:response", "closed", "protocol"],
)
def test_an_origin_without_a_whole_answer_is_broken(kind):
    assert Outcome(kind).broken
    assert not Outcome(kind).ours


@pytest.mark.parametrize("code", [500, 502, 503, 504, 599])
def test_an_origin_that_answers_5xx_is_broken(code):
    assert status(code).broken


@pytest.mark.parametrize("code", [200, 204, 301, 400, 401, 404, 410, 422, 429])
def test_an_origin_that_answers_otherwise_works(code):
    assert not status(code).broken


@pytest.mark.parametrize("kind", sorted(OURS))
def test_what_we_did_not_send_tells_nothing(kind):
    assert Outcome(kind).ours
    assert not Outcome(kind).broken


def test_429_asks_for_less_and_503_if_it_says_for_how_long():
    assert [code for code in range(200, 600) if status(code).throttled] == [429]
    asked = [code for code in range(200, 600) if Outcome("status", code, retry_after=1).throttled]
    assert asked == [429, 503]


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_accepted(status):
    outcome = Outcome("ok", status)
    assert (outcome.accepted, outcome.gone, outcome.refused_for_good) == (True, False, False)


@pytest.mark.parametrize("status", [None, 301, 304, 400, 404, 410, 429, 500, 999])
def test_nothing_else_is(status):
    outcome = Outcome(f"status:{status}", status)
    assert not outcome.accepted
    assert outcome.gone == (status == 410)
    assert outcome.refused_for_good == (status in SETTLED_REFUSALS)


def test_what_is_ours_is_held_against_nobody():
    assert (
        {kind for kind in KINDS if Outcome(kind).ours}
        == OURS
        == {"blocked", "sealed", "proxy", "local", "stopped"}
    )
    assert not Outcome("status:502", 502).ours
