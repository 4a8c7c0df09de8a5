"""Python's defaults and bounds are those of the engine and the server: neither may drift."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agniregistry_node.config import NodeConfig, fields

CRATES = Path(__file__).resolve().parents[2] / "node/crates"
CONSTANT = re.compile(r"^pub const (\w+): (?:usize|u\d+|i\d+) = ([\d_ <]+);", re.MULTILINE)
DEFAULTS = {
    "partitions": "PARTITIONS_DEFAULT",
    "queue_limit": "INBOX_SUBMISSIONS_MAX",
    "snapshot_wal_bytes": "SNAPSHOT_WAL_BYTES_DEFAULT",
    "state_check_ms": "STATE_CHECK_MS_DEFAULT",
    "wal_segment_bytes": "WAL_SEGMENT_BYTES_DEFAULT",
    "disk_reserve_bytes": "DISK_RESERVE_BYTES_DEFAULT",
    "mass_expiry_share_percent": "MASS_EXPIRY_SHARE_PERCENT_DEFAULT",
    "mass_expiry_min_leases": "MASS_EXPIRY_LEASES_MIN_DEFAULT",
    "mass_expiry_leases_per_s": "MASS_EXPIRY_LEASES_PER_S_DEFAULT",
    "max_connections": "CONNECTIONS_DEFAULT",
    "max_connections_per_identity": "CONNECTIONS_PER_IDENTITY_DEFAULT",
    "max_concurrent_streams": "STREAMS_DEFAULT",
    "max_message_bytes": "MESSAGE_BYTES_DEFAULT",
    "max_watches": "WATCHES_DEFAULT",
    "header_timeout_ms": "HEADER_TIMEOUT_MS_DEFAULT",
}
BOUNDS = {
    ("partitions", "PARTITIONS_MAX"),
    ("runtimes", "RUNTIMES_MAX"),
    ("max_message_bytes", "MESSAGE_BYTES_MIN"),
    ("max_message_bytes", "MESSAGE_BYTES_MAX"),
}


def constants() -> dict[str, int]:
    found: dict[str, int] = {}
    for crate in ("agni-core", "agni-server"):
        text = (CRATES / crate / "src/limits.rs").read_text()
        for name, value in CONSTANT.findall(text):
            base, _, shift = value.replace("_", "").partition("<<")
            found[name] = int(base) << int(shift or 0)
    return found


@pytest.mark.parametrize(("field", "constant"), DEFAULTS.items())
def test_defaults(field: str, constant: str) -> None:
    assert getattr(NodeConfig(), field) == constants()[constant]


@pytest.mark.parametrize(("field", "constant"), sorted(BOUNDS))
def test_bounds(field: str, constant: str) -> None:
    limit = constants()[constant]
    spec = next(spec for spec in fields() if spec.name == field)
    beyond = limit - 1 if constant.endswith("_MIN") else limit * 2
    assert spec.fault(limit) is None
    assert spec.fault(beyond) is not None
