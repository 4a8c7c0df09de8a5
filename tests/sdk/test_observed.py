"""What those who watch over a cluster see of it: traces over several nodes, and gRPC's health."""

from __future__ import annotations

import json
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loopback_cluster import ClusterNode, ThreeNodes, wait_until

from agniregistry import types as t
from agniregistry.client import Client
from agniregistry.config import RetryPolicy

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def logged(node: ClusterNode) -> list[dict[str, Any]]:
    """The requests of the trace, as a node has logged them."""
    lines = [json.loads(line) for line in node.log.read_text().splitlines() if TRACE in line]
    return [line for line in lines if line.get("trace_id") == TRACE]


def test_a_request_that_is_passed_on_stays_in_its_trace(cluster: ThreeNodes) -> None:
    # A target alone: the client learns of the others only from its second call on.
    first, *others = cluster.nodes
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "vendor=some"}
    for number in range(24):
        with Client(first.address, trace=lambda: headers) as client:
            client.put(t.Key.agent(f"traced{number}"), t.Spec(region="eu"))
    assert len([line for line in logged(first) if line["call"] == "Register"]) >= 24
    asked = [line for node in others for line in logged(node)]
    assert {line["call"] for line in asked} == {"Ask"}


def serving(node: ClusterNode) -> bool:
    """What gRPC's health service says of a node."""
    with grpc.insecure_channel(node.address) as channel:
        request = health_pb2.HealthCheckRequest(service="agniregistry.api.v1.RegistryService")
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_health_says_not_serving_without_a_majority(cluster: ThreeNodes) -> None:
    left, *others = cluster.nodes
    assert all(serving(node) for node in cluster.nodes)
    for node in others:
        node.kill()
    wait_until("it is known that nobody leads", lambda: not serving(left))
    assert not left.get("/readyz")
    with Client(left.address, retry=RetryPolicy.never()) as client:
        assert client.status().partitions, "it still answers those who ask for its state"
    cluster.start()
    wait_until("all serve again", lambda: all(serving(node) for node in cluster.nodes))
