"""A development CA, and a registry behind mTLS, made with grpcio, whose identity can change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agniregistry.client._serve import _Handler
from agniregistry.identity import DevCa, Leaf, SpiffeId, Tls
from agniregistry.testing import FakeRegistry


def tls_of(leaf: Leaf, **more: Any) -> Tls:
    """What a client with this leaf is given; it looks often."""
    more.setdefault("check_interval_ms", 20)
    return Tls(leaf.bundle_file, leaf.cert_file, leaf.key_file, **more)


def belong_together(key: bytes, certificate: bytes) -> bool:
    """Whether a certificate is that of a key: they are replaced one after the other."""
    public = serialization.load_pem_private_key(key, None).public_key()
    return public == x509.load_pem_x509_certificate(certificate).public_key()


class SecureRegistry:
    """A fake behind mTLS. It notes the serial of each caller's certificate."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.registry: FakeRegistry[Any] = FakeRegistry()
        self.serials: list[str] = []
        self._inner = _Handler(self.registry)
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="secure-registry")
        self._server = grpc.server(self._pool, handlers=[self], options=(("grpc.so_reuseport", 0),))
        credentials = grpc.dynamic_ssl_server_credentials(self._now(), self._now, True)
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def _now(self) -> grpc.ServerCertificateConfiguration:
        """The files as they are: asked for at each handshake."""
        key, certificate = b"", b""
        while not certificate or not belong_together(key, certificate):
            key, certificate = self.leaf.key_file.read_bytes(), self.leaf.cert_file.read_bytes()
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], self.leaf.bundle_file.read_bytes()
        )

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = self._inner.service(details)
        if handler is None or handler.unary_unary is None:
            return handler

        def noted(data: bytes, context: grpc.ServicerContext) -> bytes:
            pem = context.auth_context()["x509_pem_cert"][0]
            self.serials.append(f"{x509.load_pem_x509_certificate(pem).serial_number:x}")
            return handler.unary_unary(data, context)

        return grpc.unary_unary_rpc_method_handler(noted)

    def close(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()
        self.registry.close()


@pytest.fixture
def ca(tmp_path: Path) -> DevCa:
    """A CA of the default trust domain."""
    return DevCa.init(tmp_path / "ca")


@pytest.fixture
def other_ca(tmp_path: Path) -> DevCa:
    """Another CA that calls itself the same."""
    return DevCa.init(tmp_path / "other")


@pytest.fixture
def node(ca: DevCa) -> Leaf:
    """A node's certificate for 127.0.0.1."""
    return ca.issue(SpiffeId.node(ca.trust_domain, "1"), ["127.0.0.1"])


@pytest.fixture
def agent(ca: DevCa) -> Leaf:
    """An agent's certificate."""
    return ca.issue(SpiffeId.agent(ca.trust_domain, "default", "worker-1"))


@pytest.fixture
def secure(node: Leaf) -> Iterator[SecureRegistry]:
    """A registry that demands certificates."""
    server = SecureRegistry(node)
    yield server
    server.close()


@pytest.fixture
def during() -> Callable[..., Any]:
    """Runs a function again and again in threads while a block runs; see `Load`."""
    return Load


class Load:
    """Calls from several threads; failures are kept for the test."""

    def __init__(self, call: Callable[[], object], threads: int = 3) -> None:
        self.failures: list[Exception] = []
        self.calls = 0
        self._call = call
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            try:
                self._call()
                self.calls += 1
            except Exception as error:  # noqa: BLE001 - the test judges it
                self.failures.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def tls() -> Callable[..., Tls]:
    """`tls_of`, for tests that can't import this file."""
    return tls_of
