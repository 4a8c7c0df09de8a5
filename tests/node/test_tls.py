"""TLS of a node's process: its flags, what it refuses to start with, and what it logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agniregistry import Client, RetryPolicy, Timeout, Tls
from agniregistry.errors import ConnectionFailedError
from agniregistry.identity import DevCa, SpiffeId
from agniregistry_node.config import NodeConfig
from agniregistry_node.tls_files import TlsFiles

ONCE: dict[str, Any] = {
    "retry": RetryPolicy.never(),
    "timeout": Timeout(total_ms=5_000, attempt_ms=5_000),
}


def agni_node(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agniregistry_node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_without_tls_a_node_keeps_to_its_machine(tmp_path: Path) -> None:
    for listen in ("0.0.0.0:0", "[::]:7400", "10.0.0.1:7400", "registry.example:7400"):
        done = agni_node("run", "--listen", listen, "--data-dir", str(tmp_path / "data"))
        assert done.returncode == 3
        assert "insecure" in done.stderr
        assert NodeConfig(listen=listen, insecure=True).faults() == []
        assert NodeConfig(listen=listen, tls_dir="/tls").faults() == []
    for listen in ("127.0.0.1:0", "[::1]:7400", "localhost:7400"):
        assert NodeConfig(listen=listen).faults() == []
    assert not (tmp_path / "data").exists()


def test_files_are_named_one_by_one_or_by_their_folder(tmp_path: Path) -> None:
    def files(**settings: str) -> TlsFiles | None:
        return NodeConfig(**settings).tls_files  # type: ignore[arg-type]

    assert files() is None
    secret = str(tmp_path)
    expected = TlsFiles(f"{secret}/tls.crt", f"{secret}/tls.key", f"{secret}/ca.crt")
    assert files(tls_dir=secret) == expected
    own = {"tls_certificate_file": "c", "tls_key_file": "k"}
    assert files(**own, tls_trust_file="t") == TlsFiles("c", "k", "t")
    assert files(**own, tls_dir=secret) == TlsFiles("c", "k", expected.trust)
    for wrong in ({"tls_certificate_file": "c"}, {"tls_trust_file": "t"}, own):
        with pytest.raises(ValueError, match="tls_"):
            files(**wrong)
        assert len(NodeConfig(**wrong).faults()) == 1


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key", "ca.crt"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    ca = DevCa.init(tmp_path / "ca")
    leaf = ca.issue(SpiffeId.node(ca.trust_domain, "1"), ["127.0.0.1"])
    secret = tmp_path / "secret"
    secret.mkdir()
    sources = (leaf.cert_file, leaf.key_file, leaf.bundle_file)
    for name, source in zip(("tls.crt", "tls.key", "ca.crt"), sources, strict=True):
        if name != missing:
            (secret / name).write_bytes(source.read_bytes())
    data = ("--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    done = agni_node("run", "--tls-dir", str(secret), *data)
    assert done.returncode == 3
    assert f"{secret}/{missing}" in done.stderr
    assert "IDENTITY_MISSING" in done.stderr


def test_who_is_refused_is_logged_once_with_the_reason(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    from node_process import Process

    ca, other = DevCa.init(tmp_path / "ca"), DevCa.init(tmp_path / "other")
    ca.issue(SpiffeId.node(ca.trust_domain, "1"), ["127.0.0.1"])
    agent = SpiffeId.agent(ca.trust_domain, "default", "worker-1")
    good, stranger = ca.issue(agent), other.issue(agent)
    node = Process(tmp_path, "--tls-dir", str(ca.folder))
    try:
        address = node.address()
        assert node.wait_for("serving")["tls"] is True
        wrong = Tls(good.bundle_file, stranger.cert_file, stranger.key_file)
        for _ in range(3):
            with (
                Client(address, tls=wrong, **ONCE) as client,
                pytest.raises(ConnectionFailedError),
            ):
                client.list()
        right = Tls(good.bundle_file, good.cert_file, good.key_file)
        with Client(address, tls=right, **ONCE) as client:
            client.list()
        line = node.wait_for("tls handshake failed")
        assert line["reason"] == "untrusted"
        assert line["address"].startswith("127.0.0.1:")
        lines = [line for line in node.lines() if line["msg"] == "tls handshake failed"]
        assert len(lines) == 1
        assert "PRIVATE" not in node.log.read_text()
    finally:
        node.child.terminate()
        assert node.wait() == 0
