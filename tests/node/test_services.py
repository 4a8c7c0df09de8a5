"""What every gRPC tool expects of a server: health, reflection, traces."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from node_process import Process

from agniregistry.api.v1 import cluster_pb2, cluster_pb2_grpc, registry_pb2, registry_pb2_grpc

SERVICES = ("agniregistry.api.v1.RegistryService", "agniregistry.api.v1.ClusterService")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE_PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path, "--access-log", "true")
    yield started
    started.child.kill()
    started.child.wait()


@pytest.fixture
def channel(process: Process) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(process.address()) as channel:
        yield channel


def test_health_says_serving_until_the_node_drains(process: Process, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", *SERVICES):
        request = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(request, timeout=10).status == serving, service
    with pytest.raises(grpc.RpcError) as unknown:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND

    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=30)
    assert next(watch).status == serving
    # A watch under way keeps the node draining long enough to be seen.
    registry = registry_pb2_grpc.RegistryServiceStub(channel)
    under_way = registry.Watch(registry_pb2.WatchRequest(), timeout=30)
    next(under_way)
    process.signal(signal.SIGTERM)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    under_way.cancel()
    assert process.wait() == 0


def test_reflection_lists_the_services_and_describes_them(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**request: str) -> reflection_pb2.ServerReflectionResponse:
        requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
        return next(stub.ServerReflectionInfo(requests, timeout=10))

    listed = {service.name for service in ask(list_services="").list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health"} <= listed
    files = ask(file_containing_symbol=SERVICES[0]).file_descriptor_response.file_descriptor_proto
    assert any(b"KeepAlive" in file for file in files)
    with pytest.raises(grpc.RpcError) as unknown:
        ask(file_containing_symbol="nobody.Nothing")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_trace_comes_back_and_is_logged(process: Process, channel: grpc.Channel) -> None:
    cluster = cluster_pb2_grpc.ClusterServiceStub(channel)
    metadata = [("traceparent", TRACE_PARENT)]
    _, call = cluster.Status.with_call(cluster_pb2.StatusRequest(), metadata=metadata, timeout=10)
    assert ("traceparent", TRACE_PARENT) in call.initial_metadata()
    logged = process.wait_for("request")
    assert logged["trace_id"] == TRACE_ID
    assert logged["call"] == "Status"
    registry = registry_pb2_grpc.RegistryServiceStub(channel)
    with pytest.raises(grpc.RpcError) as refused:
        registry.Get(registry_pb2.GetRequest(), metadata=metadata, timeout=10)
    details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
    assert TRACE_ID.encode() in details
