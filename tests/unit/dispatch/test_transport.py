import asyncio

from crewcast.core import url
from crewcast.core.outcome import Outcome
from crewcast.dispatch.transport import FakeTransport, Sent, Transport

TARGET = url.parse("https://example.com/a?b=c")
OTHER = url.parse("https://example.com/other")


def test_the_fake_answers_from_its_script_and_records():
    async def scenario() -> None:
        fake = FakeTransport({"https://example.com/a?b=c": [Outcome("status:500", 500), Outcome("ok", 204)]})
        transport: Transport = fake
        headers = [(b"webhook-id", b"evt_1")]
        kinds = [(await transport.post(TARGET, headers, b"{}")).kind for _ in range(3)]
        assert kinds == ["status:500", "ok", "ok"]
        assert (await transport.post(OTHER, [], b"")).accepted
        assert fake.sent[0] == Sent(TARGET, headers, b"{}")
        assert len(fake.sent) == 4

    asyncio.run(scenario())
