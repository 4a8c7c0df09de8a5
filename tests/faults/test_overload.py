"""Too many requests: refused at once with a delay, while what keeps the living alive goes on."""

import http.client
import json
import time

import grpc
from fault_support import Background, registration, wait_for

from agniregistry import Client, Key, Kind, RetryPolicy, Spec, errors
from agniregistry.api.v1 import registry_pb2

WAVE = 200


class Flood(Background):
    """Waves of writes, far above what may wait, until it is told to stop."""

    def __init__(self, node):
        self.node = node
        self.accepted = self.refused = 0
        self.others = []
        super().__init__()

    def run(self):
        number = 0
        while not self.stop.is_set():
            number += 1
            calls = [
                self.node.registry.Register.future(
                    registration(f"flood{name}", payload=b"%d" % number), timeout=10
                )
                for name in range(WAVE)
            ]
            for call in calls:
                error = call.exception()
                if error is None:
                    self.accepted += 1
                elif error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    self.refused += 1
                else:
                    self.others.append(error)


def test_overload_is_refused_with_a_delay_and_spares_renewals(start_node):
    node = start_node(queue_limit=8)
    lease = node.register("living", ttl_ms=2_000).lease_id
    with Flood(node) as flood, Client(node.address, retry=RetryPolicy(max_attempts=1)) as client:
        wait_for("a refusal", lambda: flood.refused > 0)
        renewed = 0
        until = time.monotonic() + 3
        while time.monotonic() < until:
            answer = node.registry.Renew(registry_pb2.RenewRequest(lease_ids=[lease]), timeout=5)
            assert not answer.lost_lease_ids
            renewed += 1
        assert node.get("living") is not None
        refusal = refused_by_sdk(client)
        status, retry_after, error = refused_by_http(node)
    assert renewed > 10
    assert flood.accepted > 0
    assert not flood.others
    assert refusal.reason == "OVERLOADED"
    assert refusal.retry_delay_ms
    assert refusal.retry_delay_ms > 0
    assert (status, error["reason"]) == (429, "OVERLOADED")
    assert int(retry_after) >= 1
    # Once the flood is over everything is accepted again.
    assert node.register("afterwards").created
    print(f"{flood.accepted} accepted, {flood.refused} refused, {renewed} renewals meanwhile")


def refused_by_sdk(client):
    """The SDK's error for a refusal, when it doesn't try again by itself."""
    key = Key(Kind.GATEWAY, "sdk")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            client.put(key, Spec(region="global", ip="12.34.56.78", port=4000))
        except errors.OverloadedError as error:
            return error
    raise AssertionError("the flood left room for each of the SDK's writes")


def refused_by_http(node):
    """Status, Retry-After and error of a refusal over HTTP."""
    connection = http.client.HTTPConnection(node.address, timeout=10)
    body = json.dumps({"name": "http", "region": "global", "ip": "12.34.56.78", "port": 4000})
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        connection.request("POST", "/v1/gateways", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        if answer.status >= 400:
            connection.close()
            return answer.status, answer.headers["Retry-After"], content["error"]
    raise AssertionError("the flood left room for each write over HTTP")
