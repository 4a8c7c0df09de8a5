"""Layers, faults and documents of a node's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agniregistry_node.config import PRESETS, Field, NodeConfig, fields
from agniregistry_node.docs import settings_manual
from agniregistry_node.errors import ConfigError
from agniregistry_node.layers import load

VALID: dict[str, st.SearchStrategy[Any]] = {
    "data_dir": st.sampled_from(["data", "/var/lib/a b", "x" * 200]),
    "listen": st.sampled_from(["127.0.0.1:0", "[::1]:7400", "localhost:65535"]),
    "tls_dir": st.sampled_from(["/run/secrets/tls", "/etc/tls"]),
    # Named one by one, they need each other: tests/node/test_tls.py.
    "tls_certificate_file": st.just(""),
    "tls_key_file": st.just(""),
    "tls_trust_file": st.just(""),
    "tls_trust_domain": st.sampled_from(["", "eu.example.org"]),
    "tls_reload_interval_ms": st.integers(10, 3_600_000),
    "insecure": st.booleans(),
    "region": st.sampled_from(["", "eu-west", "global"]),
    "cluster_id": st.sampled_from(["", "0123456789abcdef" * 2]),
    "partitions": st.sampled_from([1, 2, 16, 1024]),
    "name": st.sampled_from(["", "node-1", "a" * 63]),
    "peer_listen": st.sampled_from(["127.0.0.1:7401", "[::1]:0"]),
    "peer_address": st.sampled_from(["", "node-1.example.org:7401"]),
    "client_address": st.sampled_from(["", "10.0.0.1:7400"]),
    "seeds": st.sampled_from(["", "a:7401", "a:7401,b:7401,c:7401"]),
    "zone": st.sampled_from(["", "zone-a"]),
    "replication": st.integers(1, 7),
    "snapshot_bytes_per_s": st.integers(256 << 10, 16 << 30),
    "rejoin_after_damage": st.booleans(),
    "health_listen": st.sampled_from(["", "0.0.0.0:7402"]),
    "log_level": st.sampled_from(["debug", "info", "warn", "error", "off"]),
    "access_log": st.booleans(),
    "lease_reads": st.booleans(),
    "mass_expiry_guard": st.booleans(),
    "state_check_ms": st.integers(0, 86_400_000),
    "mass_expiry_share_percent": st.integers(1, 100),
    "mass_expiry_min_leases": st.integers(1, 1_000_000),
    "mass_expiry_leases_per_s": st.integers(1, 1_000_000),
    "runtimes": st.integers(0, 64),
    "max_connections": st.integers(1, 1_000_000),
    "max_connections_per_identity": st.integers(1, 1_000_000),
    "max_concurrent_streams": st.integers(1, 65_536),
    "max_message_bytes": st.integers(64 << 10, 64 << 20),
    "max_watches": st.integers(1, 1_000_000),
    "header_timeout_ms": st.integers(100, 600_000),
    "queue_limit": st.integers(1, 1 << 24),
    "wal_segment_bytes": st.integers(64 << 10, 1 << 30),
    "snapshot_wal_bytes": st.integers(1 << 20, 1 << 40),
    "disk_reserve_bytes": st.integers(0, 1 << 40),
    "drain_timeout_ms": st.integers(0, 600_000),
}


@st.composite
def layer(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.sets(st.sampled_from(sorted(VALID))))
    return {name: draw(VALID[name]) for name in sorted(names)}


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_setting_is_tried() -> None:
    assert set(VALID) == {spec.name for spec in fields()}


@given(
    preset=st.sampled_from([None, *PRESETS]), file=layer(), environment=layer(), given_flags=layer()
)
def test_a_later_layer_wins_field_by_field(
    tmp_path_factory: pytest.TempPathFactory,
    preset: str | None,
    file: dict[str, Any],
    environment: dict[str, Any],
    given_flags: dict[str, Any],
) -> None:
    path = tmp_path_factory.mktemp("config") / "node.yaml"
    path.write_text(yaml.safe_dump(file))
    layered = load(
        path=str(path),
        preset=preset,
        env={f"AGNI_{name.upper()}": text_of(value) for name, value in environment.items()},
        flags={name: text_of(value) for name, value in given_flags.items()},
    )
    base = dict(PRESETS[preset]) if preset else {}
    for spec in fields():
        wanted: Any = spec.default
        source = "default"
        layers = [
            ("preset", base),
            (f"file {path}", file),
            ("environment", environment),
            ("flag", given_flags),
        ]
        for name, values in layers:
            if spec.name in values:
                wanted, source = values[spec.name], name
        assert getattr(layered.config, spec.name) == wanted
        assert layered.sources[spec.name] == source


@given(st.text(max_size=40), st.sampled_from(fields()))
def test_no_text_of_a_flag_gets_through_unchecked(text: str, spec: Field) -> None:
    try:
        layered = load(env={}, flags={spec.name: text})
    except ConfigError as error:
        assert any(spec.name in fault for fault in error.faults)  # noqa: PT017
    else:
        assert not layered.config.faults()


@given(st.binary(max_size=200))
def test_no_file_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("config") / "node.yaml"
    path.write_bytes(content)
    try:
        load(path=str(path), env={})
    except ConfigError as error:
        assert error.faults  # noqa: PT017


def test_all_faults_of_all_layers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("partitions: 3\nlisten: 7400\nsurprise: 1\naccess_log: 1\npreset: prod\n")
    with pytest.raises(ConfigError) as caught:
        load(
            path=str(path),
            env={"AGNI_RUNTIMES": "many", "AGNI_LOG_LEVEL": "loud", "AGNI_TARGET": "somebody's"},
            flags={"max_watches": "0"},
        )
    assert sorted(caught.value.faults) == sorted(
        [
            f"{path}: partitions must be a power of two, 1..1024, not 3",
            f"{path}: listen must be text, not 7400",
            f"{path}: surprise is not a setting; `agni-node config docs` lists them",
            f"{path}: access_log must be true or false, not 1",
            "preset must be dev or production, not 'prod'",
            "environment: runtimes must be a whole number, not 'many'",
            "environment: log_level must be debug, info, warn, error, off, not 'loud'",
            "flag: max_watches must be 1..1000000, not 0",
        ]
    )


def test_the_defaults_and_presets_are_fine() -> None:
    assert NodeConfig().faults() == []
    for name in PRESETS:
        assert load(preset=name, env={}).config.faults() == []


def test_every_setting_is_documented() -> None:
    manual = settings_manual()
    for spec in fields():
        assert f"| `{spec.name}` |" in manual
        assert spec.about.text.endswith(".")
        if spec.type is int and spec.name != "partitions":
            assert spec.about.unit, f"{spec.name} has no unit"


def agni_node(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AGNI_")}
    return subprocess.run(
        [sys.executable, "-m", "agniregistry_node", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_lists_all_faults_and_answers_3(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("partitions: 3\nlog_level: loud\n")
    done = agni_node("config", "check", "--config", str(path), AGNI_RUNTIMES="99")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 3
    assert agni_node("config", "check").returncode == 0


def test_what_show_prints_is_a_config_file(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    done = agni_node("config", "show", "--region", "eu", "--preset", "dev", AGNI_PARTITIONS="4")
    path.write_text(done.stdout)
    again = load(path=str(path), env={}).config
    assert (again.region, again.partitions, again.log_level) == ("eu", 4, "debug")
    assert "# environment" in done.stdout
    assert "# preset" in done.stdout
    assert "# flag" in done.stdout
