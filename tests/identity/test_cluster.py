"""Three real nodes behind mTLS, whose certificates and roots are replaced while they are used."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from loopback_ports import free_ports

from agniregistry import Client, Filter, Key, Kind, RetryPolicy, Spec, Timeout, Tls
from agniregistry import types as t
from agniregistry.errors import ConnectionFailedError
from agniregistry.identity import DevCa, Leaf, SpiffeId
from agniregistry_node import Node

NAMES = ("n1", "n2", "n3")
LOOPBACK = ["127.0.0.1"]
ONCE: dict[str, Any] = {
    "retry": RetryPolicy.never(),
    "timeout": Timeout(total_ms=10_000, attempt_ms=10_000),
}
SPEC = Spec(region="eu", domain="a.example", port=4000)
CALLS_BETWEEN = 30


class Secret:
    """A folder as Kubernetes mounts it: tls.crt, tls.key and ca.crt, each replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def show(self, leaf: Leaf) -> None:
        """A new certificate and its key."""
        self._write("tls.key", leaf.key_file.read_bytes())
        self._write("tls.crt", leaf.cert_file.read_bytes())

    def trust(self, *authorities: DevCa) -> None:
        """From now on these roots are trusted, and no others."""
        self._write("ca.crt", b"".join(ca.bundle_file.read_bytes() for ca in authorities))

    def tls(self) -> Tls:
        """What a client is given that uses it."""
        files = (self.folder / name for name in ("ca.crt", "tls.crt", "tls.key"))
        return Tls(*files, check_interval_ms=20)

    def _write(self, name: str, data: bytes) -> None:
        temporary = self.folder / f"{name}.new"
        temporary.write_bytes(data)
        temporary.replace(self.folder / name)


@pytest.fixture
def secrets(tmp_path: Path, ca: DevCa) -> dict[str, Secret]:
    """One for each node, and one for the client."""
    made = {name: Secret(tmp_path / name) for name in (*NAMES, "client")}
    for name in NAMES:
        made[name].show(ca.issue(SpiffeId.node(ca.trust_domain, name), LOOPBACK))
    made["client"].show(ca.issue(SpiffeId.operator(ca.trust_domain)))
    for secret in made.values():
        secret.trust(ca)
    return made


@pytest.fixture
def cluster(tmp_path: Path, secrets: dict[str, Secret]) -> Iterator[dict[str, Node]]:
    """Three nodes that are one registry, each with a secret of its own."""
    peers = [f"127.0.0.1:{port}" for port in free_ports(len(NAMES))]
    nodes = {
        name: Node(
            data_dir=tmp_path / f"data-{name}",
            name=name,
            peer_listen=peer,
            seeds=",".join(peers),
            tls_dir=str(secrets[name].folder),
            tls_reload_interval_ms=20,
            wal_segment_bytes=1 << 20,
        )
        for name, peer in zip(NAMES, peers, strict=True)
    }
    with ThreadPoolExecutor(len(NAMES)) as pool, ExitStack() as stack:
        # Each waits for the others.
        for node in pool.map(lambda node: node.start(), nodes.values()):
            stack.callback(node.stop)
        yield nodes


def serial_at(address: str, secret: Secret) -> str:
    """The serial number of the certificate that is shown to whoever connects now."""
    context = ssl.create_default_context(cafile=secret.folder / "ca.crt")
    context.load_cert_chain(secret.folder / "tls.crt", secret.folder / "tls.key")
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as stream,
    ):
        certificate: Any = stream.getpeercert()
        return str(certificate["serialNumber"]).lower().lstrip("0")


@pytest.fixture
def rotation(
    cluster: dict[str, Node],
    secrets: dict[str, Secret],
    during: Callable[..., Any],
    eventually: Callable[..., None],
) -> Iterator[Callable[[str, Leaf], None]]:
    """Gives a node another certificate while three clients write and read through all nodes; in
    the end not one of their calls has failed, and a watch has missed nothing."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(node.address, tls=secrets["client"].tls(), **ONCE))
            for node in cluster.values()
        ]
        eventually(lambda: all(node.ready for node in cluster.values()))
        keys = [Key(Kind.GATEWAY, f"{name}.example") for name in NAMES]
        watch = clients[0].watch(Filter(kind=Kind.GATEWAY))
        stack.callback(watch.close)
        assert isinstance(next(watch), t.Started)
        changes = watch.changes()

        def call() -> None:
            for client, key in zip(clients, keys, strict=True):
                client.put(key, SPEC)
                assert client.get(key).record.key == key

        load = stack.enter_context(during(call))

        def rotate(name: str, leaf: Leaf) -> None:
            secrets[name].show(leaf)
            address = cluster[name].address
            eventually(lambda: serial_at(address, secrets["client"]) == leaf.serial)
            before = load.calls
            eventually(lambda: load.calls > before + CALLS_BETWEEN)

        yield rotate
        before = load.calls
        eventually(lambda: load.calls > before + CALLS_BETWEEN)
        assert load.failures == []
        after = Key(Kind.GATEWAY, "after.example")
        clients[2].put(after, SPEC)
        assert any(change.key == after for change in changes)


def test_every_nodes_certificate_is_replaced(
    ca: DevCa, rotation: Callable[[str, Leaf], None]
) -> None:
    for _ in range(2):
        for name in NAMES:
            rotation(name, ca.renew(f"node-{name}"))


def test_the_root_is_replaced(
    ca: DevCa,
    other_ca: DevCa,
    cluster: dict[str, Node],
    secrets: dict[str, Secret],
    rotation: Callable[[str, Leaf], None],
    eventually: Callable[..., None],
) -> None:
    """Trust both, issue anew one by one, trust the new one alone."""
    domain = ca.trust_domain
    for secret in secrets.values():
        secret.trust(ca, other_ca)
    for name in NAMES:
        # Its trust was read with the certificate, which shows that it was read.
        rotation(name, ca.renew(f"node-{name}"))
    for name in NAMES:
        rotation(name, other_ca.issue(SpiffeId.node(domain, name), LOOPBACK))
    secrets["client"].show(other_ca.issue(SpiffeId.operator(domain)))
    for secret in secrets.values():
        secret.trust(other_ca)
    for name in NAMES:
        rotation(name, other_ca.renew(f"node-{name}"))
    stranger = ca.issue(SpiffeId.agent(domain, "default", "worker-1"))
    bundle = secrets["client"].folder / "ca.crt"
    expected = hashlib.sha256(bundle.read_bytes()).hexdigest()
    for node in cluster.values():
        with Client(node.address, tls=secrets["client"].tls(), **ONCE) as client:
            status = client.status()
        assert status.trust_sha256 == expected
        assert status.certificate_not_after_unix_ms > time.time() * 1000
    for node in cluster.values():
        tls = Tls(bundle, stranger.cert_file, stranger.key_file)
        with (
            Client(node.address, tls=tls, **ONCE) as client,
            pytest.raises(ConnectionFailedError),
        ):
            client.list()
