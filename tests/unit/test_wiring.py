"""What the settings mean to each part of a node."""

import math
from ipaddress import ip_address

from crewcast import config
from crewcast.core import url
from crewcast.dispatch.limits import SenderLimits
from crewcast.wiring import dispatch_limits, egress_policy, sender_limits, worker_limits


def settings(command="serve", **environ):
    return config.load(command, {}, {f"CREWCAST_{name.upper()}": value for name, value in environ.items()})


def test_the_limits_of_the_sender_are_its_own_defaults_unless_they_are_set():
    assert sender_limits(settings()) == SenderLimits()
    told = sender_limits(settings(delivery_timeout="60", connect_timeout="3", response_timeout="20"))
    assert (told.total, told.resolve, told.connect, told.tls, told.response) == (60, 3, 3, 3, 20)
    assert math.isinf(sender_limits(settings(delivery_timeout="60")).response)


def test_the_rules_of_the_operator_reach_the_guard():
    policy = egress_policy(
        settings(allow_networks="10.0.0.0/8", allow_hosts="localhost", deny_networks="10.1.0.0/16")
    )
    assert policy.check_address(ip_address("10.0.0.1"), "x") is None
    assert policy.check_address(ip_address("10.1.0.1"), "x") is not None
    assert policy.check_url(url.parse("https://localhost/")) is None
    assert policy.check_url(url.parse("http://localhost/")) == "is not https"


def test_dev_alone_opens_loopback_and_http():
    for command, allowed in (("dev", True), ("serve", False)):
        policy = egress_policy(settings(command))
        assert (policy.check_url(url.parse("http://hooks.example/")) is None) == allowed
        assert (policy.check_url(url.parse("https://127.0.0.1/")) is None) == allowed
        assert (policy.check_address(ip_address("::1"), "x") is None) == allowed
        assert policy.check_address(ip_address("10.0.0.1"), "x") is not None


def test_a_lease_is_that_of_runs_and_lanes_and_where_nodes_share_a_store_children_wait_half_of_it():
    alone = settings(lease="8")
    assert (worker_limits(alone, []).lease, dispatch_limits(alone).lease) == (8_000_000, 8_000_000)
    assert worker_limits(alone, []).patience is None
    shared = settings(lease="8", database_url="postgresql://db/x")
    assert (worker_limits(shared, []).patience, worker_limits(shared, []).renew_every) == (4.0, 2_000_000)
