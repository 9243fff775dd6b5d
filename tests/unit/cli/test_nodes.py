"""The table of nodes."""

import json

from crewcast.cli import nodes


class Server:
    def __init__(self, *told):
        self.told = {"nodes": list(told)}
        self.asked = []

    def ask(self, method, path):
        self.asked.append((method, path))
        return json.dumps(self.told).encode()


def node(name, state, roles, crews):
    times = {"started_at": "2026-11-24T03:57:54.251882Z", "seen_at": "2026-11-24T04:05:41.693399Z"}
    return {
        "name": name,
        "state": state,
        "roles": roles,
        "crews": crews,
        "version": "1",
        "url": None,
        **times,
    }


def test_each_node_is_a_line_with_what_it_does(capsys):
    server = Server(
        node("api-1", "alive", ["api", "dispatcher"], []),
        node("w", "lapsed", ["worker"], ["cake", "tea"]),
    )
    nodes._list(server)
    assert server.asked == [("GET", "/api/v1/nodes")]
    assert capsys.readouterr().out == (
        "NAME   STATE   ROLES           SINCE                        LAST SEEN                    CREWS\n"
        "api-1  alive   api,dispatcher  2026-11-24T03:57:54.251882Z  2026-11-24T04:05:41.693399Z  -\n"
        "w      lapsed  worker          2026-11-24T03:57:54.251882Z  2026-11-24T04:05:41.693399Z  cake,tea\n"
    )


def test_where_nobody_is_there_is_a_heading(capsys):
    nodes._list(Server())
    assert capsys.readouterr().out == "NAME  STATE  ROLES  SINCE  LAST SEEN  CREWS\n"
