"""Backups where everybody proves who they are: nodes gather from each other, nobody else may."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from archive_model import varint
from loopback import Cluster, agnictl

from agniregistry import Key, Spec
from agniregistry import types as t

COPY = "/agniregistry.node.v1.NodeService/Copy"


def copy(cluster: Cluster, index: int, who: str, cluster_id: str) -> int:
    """Asks for a partition's copy as a node does; answers how many messages came."""
    bundle, certificate, key = (Path(name).read_bytes() for name in cluster.files(who))
    credentials = grpc.ssl_channel_credentials(bundle, key, certificate)
    request = b"\x0a" + varint(16) + bytes.fromhex(cluster_id)
    with grpc.secure_channel(cluster.addresses[index], credentials) as channel:
        return sum(1 for _ in channel.unary_stream(COPY)(request, timeout=30))


def test_nodes_gather_from_each_other_and_nobody_else_may(tmp_path: Path) -> None:
    with Cluster(tmp_path / "nodes", 4, 2, tls=True) as cluster:
        with cluster.client() as client:
            spec = Spec(region="eu", ip="192.0.2.1", port=80)
            keys = [Key.agent(f"a-{each}") for each in range(200)]
            client.batch([t.RegisterOperation(key, spec) for key in keys])
            cluster_id = client.status().cluster_id
            held = client.members().placements
        bundle, certificate, key = cluster.files("operator")
        access = ["--ca", bundle, "--cert", certificate, "--key", key]
        for address in cluster.addresses:
            words = [*access, "backup", "checksum", "-o", "json"]
            assert json.loads(agnictl(*words, address=address))["records"] == 200
        holder = next(index for index in range(4) if node_id(cluster, index) in held[0].voters)
        assert copy(cluster, holder, "node-n1", cluster_id) >= 2
        with pytest.raises(grpc.RpcError) as refused:
            copy(cluster, holder, "operator", cluster_id)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as refused:
            copy(cluster, holder, "node-n1", "00" * 16)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def node_id(cluster: Cluster, index: int) -> int:
    """A node's identity."""
    with cluster.client(index) as client:
        return client.status().node_id
