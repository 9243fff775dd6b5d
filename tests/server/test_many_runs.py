"""Twenty runs at once keep their events apart and their sequences dense."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.receiver import check_lanes
from tests.support.server import ServerProcess

RUNS = 20


def test_twenty_runs_at_once_do_not_mix(server: ServerProcess, receiver):
    topics = [f"topic-{n:02}" for n in range(RUNS)]

    def kickoff(topic: str) -> str:
        return server.kickoff({"topic": topic, "audience": "all"}, meta={"topic": topic}, **receiver.urls())

    with ThreadPoolExecutor(RUNS) as pool:
        ids = dict(zip(pool.map(kickoff, topics), topics, strict=True))
    for kickoff_id, topic in ids.items():
        status = server.wait_for(kickoff_id, 120)
        assert status["state"] == "SUCCESS", status
        assert topic in status["result"]["output"]
    requests = receiver.wait_for_crew_events(RUNS)
    logs = {kickoff_id: server.events(kickoff_id) for kickoff_id in ids}
    receiver.wait(lambda all_: len({one.event_id for one in all_}) == sum(map(len, logs.values())))
    check_lanes(receiver.requests)
    for kickoff_id, topic in ids.items():
        mine = [one for one in receiver.requests if one.headers["crewcast-kickoff-id"] == kickoff_id]
        assert [event["seq"] for event in logs[kickoff_id]] == list(range(1, len(logs[kickoff_id]) + 1))
        others = [other for other in topics if other != topic]
        for one in mine:
            assert not any(other.encode() in one.body for other in others)
    assert len(requests) >= RUNS
