"""Every setting of a node: its default, unit, bounds, meaning and danger, in one place.

The command line's flags, the environment's names, the file's keys, `agni-node config docs` and
docs/operations.md are all made from these fields. Layers: default < preset < file < environment
< flag; `agniregistry_node.layers` puts them together.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agniregistry_node.checks import (
    Check,
    between,
    check_address,
    check_cluster_id,
    check_data_dir,
    check_health_listen,
    check_listen,
    check_log_level,
    check_name,
    check_partitions,
    check_path,
    check_region,
    check_seeds,
    check_trust_domain,
)
from agniregistry_node.errors import ConfigError
from agniregistry_node.tls_files import TlsFiles, files_of, is_loopback

Value = str | int | bool

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class About:
    """What people must know of a setting."""

    text: str
    unit: str = ""
    danger: str = ""
    check: Check | None = None


def setting(
    default: Value, text: str, *, unit: str = "", danger: str = "", check: Check | None = None
) -> Any:
    """A field of `NodeConfig`; `check` answers what is wrong with a value, or None."""
    about = About(text=text, unit=unit, danger=danger, check=check)
    return dataclasses.field(default=default, metadata={"about": about})


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """The settings of one node."""

    data_dir: str = setting(
        "data",
        "Folder of the log, the snapshots and the node's identity; made if it isn't there.",
        danger="Two nodes must never share it: a lock refuses the second. On a file system that "
        "lies about fsync (some network and memory file systems), acknowledged writes can be lost.",
        check=check_data_dir,
    )
    listen: str = setting(
        "127.0.0.1:7400",
        "host:port for gRPC and HTTP alike; port 0 lets the system choose.",
        danger="Without TLS, whoever reaches this address may change anything, so only loopback is "
        "taken then. With TLS, whoever has a certificate of the trust domain may: there are no "
        "rules yet of who may do what.",
        check=check_listen,
    )
    health_listen: str = setting(
        "",
        "host:port for `/livez`, `/readyz` and `/metrics` in plain HTTP, also with TLS and while "
        "the node looks for its cluster; empty for none.",
        danger="Whoever reaches it sees figures and names, and can change nothing.",
        check=check_health_listen,
    )
    tls_dir: str = setting(
        "",
        "Folder of the node's TLS files: `tls.crt`, `tls.key` and `ca.crt`, or those that "
        "`agnictl dev ca` made for one node.",
        check=check_path,
    )
    tls_certificate_file: str = setting(
        "",
        "The node's certificate, PEM, then what leads up to a root; replaced while the node runs.",
        check=check_path,
    )
    tls_key_file: str = setting(
        "",
        "The certificate's private key, PEM, without a passphrase.",
        danger="Whoever reads it can be this node: mode 0600.",
        check=check_path,
    )
    tls_trust_file: str = setting(
        "",
        "The CA certificates that vouch for clients and nodes, PEM.",
        danger="Each CA in it can let anybody in.",
        check=check_path,
    )
    tls_trust_domain: str = setting(
        "",
        "The trust domain of which every client and node must be; empty takes that of the node's "
        "own certificate.",
        check=check_trust_domain,
    )
    tls_reload_interval_ms: int = setting(
        2_000,
        "Time between two looks at whether the TLS files have changed.",
        unit="milliseconds",
        check=between(10, 3_600_000),
    )
    insecure: bool = setting(
        False,
        "Whether `listen` may be reachable from other machines without TLS.",
        danger="Whoever reaches it may then change anything, and read along.",
    )
    region: str = setting(
        "", "The region this node stands in, shown in its status.", check=check_region
    )
    cluster_id: str = setting(
        "",
        "The cluster's identity, 32 hexadecimal digits; empty lets a new data folder choose one.",
        danger="A folder of another cluster is refused.",
        check=check_cluster_id,
    )
    partitions: int = setting(
        16,
        "Partitions of a new cluster: a power of two.",
        danger="Fixed when the data folder is made; another number is refused afterwards.",
        check=check_partitions,
    )
    name: str = setting(
        "",
        "What this node is called in its cluster; empty for a node that stays alone.",
        danger="Each node needs its own, kept over its whole life: a node that comes with a name "
        "that is known and an empty data folder replaces the one that had the name.",
        check=check_name,
    )
    peer_listen: str = setting(
        "127.0.0.1:7401",
        "host:port on which other nodes are listened to; only with a name.",
        danger="Without TLS whoever reaches this address may pass for a node.",
        check=check_listen,
    )
    peer_address: str = setting(
        "",
        "host:port under which other nodes reach this one; empty for where it listens.",
        check=check_address,
    )
    client_address: str = setting(
        "",
        "host:port under which clients and nodes reach this one; empty for where it listens.",
        check=check_address,
    )
    seeds: str = setting(
        "",
        "Peer addresses of the nodes that found the cluster, with commas; a node that is not among "
        "them joins through them. Empty begins a cluster of one.",
        danger="The same list, in the same order, on every founder: the first one founds.",
        check=check_seeds,
    )
    zone: str = setting(
        "", "The zone this node runs in: replicas are spread over zones.", check=check_region
    )
    replication: int = setting(
        3,
        "Replicas of each partition in a cluster that this node founds.",
        unit="replicas",
        danger="Fewer than 3 survive the loss of no node.",
        check=between(1, 7),
    )
    snapshot_bytes_per_s: int = setting(
        64 * MIB,
        "Most that is sent of snapshots to other nodes, all together.",
        unit="bytes a second",
        danger="Too much leaves the network no room for clients; too little keeps a new node "
        "waiting.",
        check=between(256 * KIB, 16 * GIB),
    )
    rejoin_after_damage: bool = setting(
        True,
        "Whether a node of a cluster whose log is damaged in the middle keeps it aside, in its "
        "data directory, and joins anew with a copy of the others' data.",
        danger="Without it the node refuses to start until somebody has looked at it.",
    )
    log_level: str = setting(
        "info",
        "Least level that is logged: debug, info, warn, error or off.",
        check=check_log_level,
    )
    access_log: bool = setting(
        False, "Whether each request is logged.", danger="Costs much of the throughput."
    )
    runtimes: int = setting(
        0,
        "Threads that serve connections; 0 chooses by the cores.",
        unit="threads",
        danger="More than the cores makes it slower: the driver and the log need a share, too.",
        check=between(0, 64),
    )
    max_connections: int = setting(
        10_000,
        "Open connections; those beyond are closed at once.",
        unit="connections",
        danger="Each needs a file descriptor: raise the process's limit with it.",
        check=between(1, 1_000_000),
    )
    max_connections_per_identity: int = setting(
        64,
        "Open connections of one identity, with TLS; those beyond are closed at once.",
        unit="connections",
        danger="Too few lock out an identity that many processes share.",
        check=between(1, 1_000_000),
    )
    max_concurrent_streams: int = setting(
        100,
        "Requests that one connection may have under way.",
        unit="streams",
        check=between(1, 65_536),
    )
    max_message_bytes: int = setting(
        MIB,
        "Longest request message or body.",
        unit="bytes",
        danger="Every stream may hold that much memory.",
        check=between(64 * KIB, 64 * MIB),
    )
    max_watches: int = setting(
        10_000,
        "Watches that one runtime serves.",
        unit="watches",
        check=between(1, 1_000_000),
    )
    header_timeout_ms: int = setting(
        5_000,
        "Time for a connection's first bytes, for headers and for a request's message.",
        unit="milliseconds",
        danger="Long times let slow senders hold connections.",
        check=between(100, 600_000),
    )
    queue_limit: int = setting(
        65_536,
        "Requests that may wait for the engine; those beyond are refused as overload.",
        unit="requests",
        danger="A long queue makes everybody wait instead of telling a few to come back.",
        check=between(1, 16_777_216),
    )
    wal_segment_bytes: int = setting(
        64 * MIB,
        "Length of a file of the log; written with zeros when it is made.",
        unit="bytes",
        check=between(64 * KIB, GIB),
    )
    snapshot_wal_bytes: int = setting(
        256 * MIB,
        "Log since the last snapshots that starts the next ones.",
        unit="bytes",
        danger="More makes a restart longer and the log larger; less writes snapshots more often.",
        check=between(MIB, 1024 * GIB),
    )
    disk_reserve_bytes: int = setting(
        64 * MIB,
        "Bytes kept aside as a file and given up when the disk is full; also the free space below "
        "which growing writes are refused.",
        unit="bytes",
        danger="0 leaves a full disk no room for deletes and snapshots.",
        check=between(0, 1024 * GIB),
    )
    lease_reads: bool = setting(
        True,
        "Whether a leader answers reads and renewals by itself for up to 810 ms after a quorum has "
        "confirmed it; false asks a quorum each time, many at once.",
        danger="It trusts that no two nodes' clocks differ by more than 10 % over a second, and "
        "that the time since boot goes on while a machine is paused. Set it to false on every node "
        "where that is not so, or a read may miss what another leader has acknowledged.",
    )
    mass_expiry_guard: bool = setting(
        True,
        "Whether many leases of one region, or behind one gateway, that run out together are kept "
        "as SUSPECT at first.",
        danger="Without it, a network fault between a region and this node deletes the region.",
    )
    state_check_ms: int = setting(
        10_000,
        "Time between two comparisons of what the replicas of a partition hold; 0 for none.",
        unit="milliseconds",
        danger="With 0, a replica that holds something else than the others serves it unnoticed.",
        check=between(0, 86_400_000),
    )
    mass_expiry_share_percent: int = setting(
        30,
        "Share of such leases, of those on partitions that this node leads, above which their "
        "silence is one fault and not many.",
        unit="percent",
        danger="100 never holds anything; a low share keeps what is really gone longer.",
        check=between(1, 100),
    )
    mass_expiry_min_leases: int = setting(
        5,
        "Silent leases below which it never is.",
        unit="leases",
        danger="Fleets of fewer are not protected; with 1, whoever is alone in its region goes "
        "late.",
        check=between(1, 1_000_000),
    )
    mass_expiry_leases_per_s: int = setting(
        1_000,
        "Leases of one region that run out in a second when they have been kept for long enough.",
        unit="leases a second",
        danger="A high rate floods watches and clients; a low one keeps the dead listed longer.",
        check=between(1, 1_000_000),
    )
    drain_timeout_ms: int = setting(
        10_000,
        "Time that requests under way get when the node is asked to stop.",
        unit="milliseconds",
        danger="The supervisor's own patience must be longer, or it kills the node while it "
        "drains (which loses nothing that was acknowledged).",
        check=between(0, 600_000),
    )

    def faults(self) -> list[str]:
        """All that is wrong, each with its field; empty if all is well."""
        faults = faults_of({spec.name: getattr(self, spec.name) for spec in fields()})
        return faults or self._faults_together()

    def _faults_together(self) -> list[str]:
        """What is wrong with settings that are fine each by itself."""
        try:
            files = self.tls_files
        except ValueError as error:
            return [str(error)]
        if files is not None or self.insecure:
            return []
        listens = {"listen": self.listen}
        if self.name:
            listens["peer_listen"] = self.peer_listen
        return [
            f"{field} {address} can be reached from other machines, and without TLS whoever "
            "reaches it may change anything; set tls_dir, listen on 127.0.0.1, or set insecure "
            "to true"
            for field, address in listens.items()
            if not is_loopback(address)
        ]

    @property
    def tls_files(self) -> TlsFiles | None:
        """The node's TLS files; None where it speaks no TLS.

        Raises:
            ValueError: Where only some of them are named.
        """
        return files_of(
            self.tls_dir,
            self.tls_certificate_file,
            self.tls_key_file,
            self.tls_trust_file,
            self.name,
        )

    def validate(self) -> None:
        """Refuses settings that can't be used.

        Raises:
            ConfigError: With all faults.
        """
        faults = self.faults()
        if faults:
            raise ConfigError(faults)


@dataclass(frozen=True)
class Field:
    """One setting, as the layers and the docs see it."""

    name: str
    type: type[str | int | bool]
    default: Value
    about: About

    @property
    def env(self) -> str:
        """Its name in the environment."""
        return f"AGNI_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, with the field's name; None if nothing is."""
        # A bool is an int in Python, but `partitions: true` is a mistake.
        if type(value) is not self.type:
            words = {str: "text", int: "a whole number", bool: "true or false"}
            return f"{self.name} must be {words[self.type]}, not {value!r}"
        reason = self.about.check(value) if self.about.check else None
        return f"{self.name} {reason}" if reason else None

    def parse(self, text: str) -> Value:
        """A value from the text of an environment variable or a flag.

        Raises:
            ValueError: With the field's name, if it isn't one.
        """
        if self.type is str:
            return text
        if self.type is bool:
            words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
            if text.lower() not in words:
                raise ValueError(f"{self.name} must be true or false, not {text!r}")
            return words[text.lower()]
        if not re.fullmatch(r"-?[0-9][0-9_]*", text):
            raise ValueError(f"{self.name} must be a whole number, not {text!r}")
        return int(text)


def fields() -> Sequence[Field]:
    """All settings, in the order in which they are documented."""
    found = []
    for spec in dataclasses.fields(NodeConfig):
        default: Any = spec.default
        found.append(Field(spec.name, type(default), default, spec.metadata["about"]))
    return found


def faults_of(values: Mapping[str, Any]) -> list[str]:
    """All that is wrong with some settings, unknown names included."""
    known = {spec.name: spec for spec in fields()}
    found = [known[name].fault(value) for name, value in values.items() if name in known]
    unknown = [
        f"{name} is not a setting; `agni-node config docs` lists them"
        for name in values
        if name not in known
    ]
    return [fault for fault in found if fault] + unknown


PRESETS: Mapping[str, Mapping[str, Value]] = {
    # One person's machine: little disk, everything told, gone quickly when asked.
    "dev": {
        "log_level": "debug",
        "wal_segment_bytes": 8 * MIB,
        "snapshot_wal_bytes": 32 * MIB,
        "disk_reserve_bytes": 16 * MIB,
        "drain_timeout_ms": 2_000,
    },
    # A server of its own: reachable over TLS, with room for long logs and patient with clients.
    "production": {
        "listen": "0.0.0.0:7400",
        "tls_dir": "/etc/agniregistry/tls",
        "data_dir": "/var/lib/agniregistry",
        "disk_reserve_bytes": 256 * MIB,
        "drain_timeout_ms": 30_000,
    },
}
