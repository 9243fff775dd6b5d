"""kill -9 at random moments between append, POST and settle: nothing acknowledged is lost, order holds.

A few seconds here; `make soak` sets CREWCAST_SOAK_SECONDS for the long form.
"""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.support.receiver import Receiver, check_lanes, first_deliveries

NODE = Path(__file__).parent / "delivering_node.py"
SECONDS = float(os.environ.get("CREWCAST_SOAK_SECONDS", "6"))


def read(process: subprocess.Popen[str], acknowledged: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("evt_") and line.endswith("\n"):
            acknowledged.append(line.strip())


def test_no_kill_loses_an_event_or_its_order(tmp_path):
    dice = random.Random()
    acknowledged: list[str] = []
    kills = 0
    with Receiver(lambda request, n: 503 if dice.random() < 0.03 else 204) as receiver:
        until = time.monotonic() + SECONDS
        while True:
            node = subprocess.Popen(
                [sys.executable, str(NODE), str(tmp_path), receiver.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert node.stdin is not None
            assert node.stdout is not None
            assert node.stdout.readline() == "up\n"
            reader = threading.Thread(target=read, args=(node, acknowledged))
            reader.start()
            last = time.monotonic() > until
            time.sleep(dice.uniform(0.05, 0.8))
            if last:
                node.stdin.write("finish\n")
                node.stdin.flush()
                status = node.wait(60)
            else:
                node.kill()
                node.wait()
                kills += 1
            reader.join()
            node.stdin.close()
            node.stdout.close()
            if last:
                assert status == 0
                break
        first = first_deliveries(receiver.requests)
        delivered = {one.event_id for one in first}
        repeated = [one for one in receiver.requests if one.event_id in delivered]
        lost = [event for event in acknowledged if event not in delivered]
        print(
            f"{kills} kills, {len(acknowledged)} events acknowledged, {len(first)} delivered, "
            f"{len(repeated) - len(first)} deliveries beyond the first (retries and repetitions)"
        )
        assert kills >= 3
        assert lost == []
        check_lanes(receiver.requests)
        bodies: dict[str, bytes] = {}
        for one in receiver.requests:
            assert bodies.setdefault(one.event_id, one.body) == one.body, "the same id, another body"
