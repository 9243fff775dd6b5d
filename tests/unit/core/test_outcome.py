import pytest

from crewcast.core.outcome import KINDS, OURS, SETTLED_REFUSALS, Outcome


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
    assert {kind for kind in KINDS if Outcome(kind).ours} == OURS == {"proxy", "local", "stopped"}
    assert not Outcome("status:502", 502).ours
