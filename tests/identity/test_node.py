"""The real node behind mTLS, with the development CA's certificates and the SDK as its client."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from agniregistry import Client, Filter, Key, Kind, RetryPolicy, Spec, Timeout, Tls
from agniregistry import types as t
from agniregistry.errors import ConnectionFailedError
from agniregistry.identity import DevCa, Leaf, SpiffeId
from agniregistry_node import AgniNodeError, Node

ONCE: dict[str, Any] = {
    "retry": RetryPolicy.never(),
    "timeout": Timeout(total_ms=5_000, attempt_ms=5_000),
}
KEY = Key(kind=Kind.GATEWAY, name="a.example")
SPEC = Spec(region="eu", domain="a.example", port=4000)


@pytest.fixture
def registry(ca: DevCa, node: Leaf) -> Iterator[Node]:
    """A node with a certificate for 127.0.0.1, which looks at its files often."""
    with Node(tls_dir=ca.folder, tls_reload_interval_ms=20) as running:
        yield running


def context(leaf: Leaf) -> ssl.SSLContext:
    """Of a client that isn't ours."""
    made = ssl.create_default_context(cafile=leaf.bundle_file)
    made.load_cert_chain(leaf.cert_file, leaf.key_file)
    return made


def get(address: str, leaf: Leaf, path: str) -> tuple[str, str]:
    """One HTTP/1 request: the answer, and the serial of the node's certificate."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context(leaf).wrap_socket(plain, server_hostname=host) as stream,
    ):
        certificate: Any = stream.getpeercert()
        stream.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(65_536), b""))
    return answer.decode(), str(certificate["serialNumber"]).lower().lstrip("0")


def metric(address: str, leaf: Leaf, name: str) -> float:
    text, _ = get(address, leaf, "/metrics")
    return float(
        next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} "))
    )


def test_who_has_a_certificate_registers_and_discovers(
    registry: Node, agent: Leaf, tls: Callable[..., Tls]
) -> None:
    for target in (registry.address, f"https://{registry.address}/"):
        with Client(target, tls=tls(agent), **ONCE) as client:
            client.put(KEY, SPEC)
            found = client.discover(Filter(kind=Kind.GATEWAY), region="eu")
            assert [candidate.instance.record.key for candidate in found.candidates] == [KEY]
    assert get(registry.address, agent, "/healthz")[0].startswith("HTTP/1.1 200")
    left = metric(registry.address, agent, "agni_tls_certificate_expiry_seconds")
    assert 86_000 < left <= 86_400


def test_a_node_that_is_not_trusted_is_named_so(
    registry: Node, agent: Leaf, other_ca: DevCa
) -> None:
    wrong = Tls(other_ca.bundle_file, agent.cert_file, agent.key_file)
    with (
        Client(registry.address, tls=wrong, **ONCE) as client,
        pytest.raises(ConnectionFailedError) as caught,
    ):
        client.list()
    assert caught.value.metadata["tls"] == "untrusted"


def test_who_has_no_good_certificate_stays_outside(
    registry: Node, ca: DevCa, other_ca: DevCa, agent: Leaf
) -> None:
    stranger = other_ca.issue(agent.spiffe_id)
    past = datetime.now(UTC) - timedelta(days=2)
    expired = ca.issue(SpiffeId.operator(ca.trust_domain), now=past)
    raw = grpc.ssl_channel_credentials(
        expired.bundle_file.read_bytes(),
        expired.key_file.read_bytes(),
        expired.cert_file.read_bytes(),
    )
    attempts: list[dict[str, Any]] = [
        {},
        {"tls": Tls(agent.bundle_file)},
        {"tls": Tls(agent.bundle_file, stranger.cert_file, stranger.key_file)},
        {"credentials": raw},
    ]
    for attempt in attempts:
        with (
            Client(registry.address, **ONCE, **attempt) as client,
            pytest.raises(ConnectionFailedError),
        ):
            client.list()
    name = "agni_tls_handshake_failures_total"
    for reason in ("not_tls", "no_certificate", "untrusted", "expired"):
        assert metric(registry.address, agent, f'{name}{{reason="{reason}"}}') >= 1


def test_certificates_are_replaced_under_load(
    registry: Node,
    ca: DevCa,
    agent: Leaf,
    tls: Callable[..., Tls],
    during: Callable[..., Any],
    eventually: Callable[..., None],
) -> None:
    with Client(registry.address, tls=tls(agent), **ONCE) as client:
        client.put(KEY, SPEC)
        watch = client.watch(Filter(kind=Kind.GATEWAY))
        assert isinstance(next(watch), t.Started)
        with during(lambda: client.get(KEY)) as load:

            def rotate() -> None:
                leaf, mine = ca.renew("node-1"), ca.renew("agent-worker-1@default")
                eventually(lambda: get(registry.address, mine, "/healthz")[1] == leaf.serial)
                before = load.calls
                eventually(lambda: load.calls > before + 20)

            for _ in range(3):
                rotate()
        assert load.failures == []
        client.put(Key(kind=Kind.GATEWAY, name="after.example"), SPEC)
        assert next(watch.changes()).key.name == "after.example"
        watch.close()
    assert metric(registry.address, agent, "agni_tls_reload_failures_total") == 0
    assert metric(registry.address, agent, "agni_tls_reloads_total") >= 3


def test_a_folder_that_will_not_do_is_refused(ca: DevCa, agent: Leaf) -> None:
    with pytest.raises(AgniNodeError, match="holds 0 certificates node-"):
        Node(tls_dir=ca.folder).start()
    with pytest.raises(AgniNodeError, match="which is no node") as caught:
        Node(
            tls_dir=ca.folder,
            tls_certificate_file=str(agent.cert_file),
            tls_key_file=str(agent.key_file),
        ).start()
    assert caught.value.code == "IDENTITY_INVALID"
    for number in (1, 2):
        ca.issue(SpiffeId.node(ca.trust_domain, str(number)), ["127.0.0.1"])
    with pytest.raises(AgniNodeError, match=r"holds 2 certificates node-.*; choose one"):
        Node(tls_dir=ca.folder).start()
    with pytest.raises(AgniNodeError, match="trust domain"):
        Node(
            tls_trust_domain="elsewhere",
            tls_certificate_file=str(ca.folder / "node-2.pem"),
            tls_key_file=str(ca.folder / "node-2-key.pem"),
            tls_trust_file=str(ca.bundle_file),
        ).start()
