"""The cells in which the node and etcd alternate."""

from __future__ import annotations

import http.client
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import wire
from .drive import Driver, Load, Result
from .servers import AgniNode, Echo, Etcd, Server

KEYS = 10_000
"""Different keys that a cell writes or reads."""
LEASES = 10_000
"""Leases that a cell renews."""
PACKED = 1_000
"""Leases in one packed renewal."""
BATCH_RECORDS = 200
TXN_KEYS = 100
WRITE_SHAPES = ((1, 1), (1, 16), (1, 128), (8, 16), (8, 128))
READ_SHAPES = ((1, 1), (1, 128), (8, 16), (8, 128))
RENEW_SHAPES = ((1, 1), (1, 128), (8, 16))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One comparison: what is sent to whom."""

    title: str
    shape: str
    ours: Load
    theirs: Load
    asked: str = "–"
    """The ratio that the project wants to reach, or other words; a dash where it only looks."""


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    ordered = sorted(values)
    return {
        "min": round(ordered[0], 2),
        "median": round(statistics.median(ordered), 2),
        "max": round(ordered[-1], 2),
    }


class Bench:
    """The servers and the driver of a run."""

    def __init__(self, folder: Path, driver: Driver, etcd: Path, echo: Path) -> None:
        self.folder = folder
        self.driver = driver
        self.etcd_binary = etcd
        self.echo_binary = echo
        self._count = 0

    def fresh(self, name: str) -> Path:
        """A new folder for a server or for bodies."""
        self._count += 1
        path = self.folder / f"{self._count:02d}-{name}"
        path.mkdir(parents=True)
        return path

    def node(self, **settings: str | int | bool) -> AgniNode:
        """A node with an empty data directory."""
        return AgniNode(self.fresh("node"), self.driver.binary, **settings)

    def etcd(self) -> Etcd:
        """An etcd with an empty data directory."""
        return Etcd(self.fresh("etcd"), self.driver.binary, self.etcd_binary)

    def alternate(
        self, cells: list[Cell], rounds: int, prepare: Callable[[Server, Server], None] | None
    ) -> list[dict[str, object]]:
        """Measures cells in turn, ours and theirs next to each other, on fresh servers."""
        ours, theirs = self.node(), self.etcd()
        try:
            ours.start()
            theirs.start()
            if prepare is not None:
                prepare(ours, theirs)
            return [self._cell(cell, ours, theirs, rounds) for cell in cells]
        finally:
            ours.stop()
            theirs.stop()

    def _cell(self, cell: Cell, ours: Server, theirs: Server, rounds: int) -> dict[str, object]:
        pairs: list[tuple[Result, Result]] = []
        for number in range(rounds):
            # Who goes first changes, so that neither always meets the disk the other left.
            if number % 2:
                second = self.driver.cell(theirs, cell.theirs)
                first = self.driver.cell(ours, cell.ours)
            else:
                first = self.driver.cell(ours, cell.ours)
                second = self.driver.cell(theirs, cell.theirs)
            pairs.append((first, second))
        ratio = spread([first.rate / second.rate for first, second in pairs])
        row: dict[str, Any] = {
            "title": cell.title,
            "shape": cell.shape,
            "asked": cell.asked,
            "ratio": ratio,
            "ours": summary([first for first, _ in pairs]),
            "theirs": summary([second for _, second in pairs]),
        }
        print(
            f"{cell.title:32s} {cell.shape:8s} {row['ours']['rate']['median']:10.0f}"
            f" {row['theirs']['rate']['median']:10.0f}  ratio {ratio['min']}"
            f" / {ratio['median']} / {ratio['max']}",
            flush=True,
        )
        return row

    def echo(self, rounds: int) -> list[dict[str, object]]:
        """The bare echo, on the same core, in the shapes of the reads."""
        server = Echo(self.fresh("echo"), self.driver.binary, self.echo_binary)
        message = wire.chunk(1, wire.etcd_key(0)) + wire.chunk(2, wire.spec_of(0))
        bodies = wire.write_bodies(server.folder / "bodies", [message])
        rows: list[dict[str, object]] = []
        server.start()
        try:
            for connections, streams in READ_SHAPES:
                load = Load(
                    path=Echo.probe_path, bodies=bodies, connections=connections, streams=streams
                )
                results = [self.driver.cell(server, load) for _ in range(rounds)]
                shape = f"{connections}×{streams}"
                rows.append({"title": "bare echo", "shape": shape, "ours": summary(results)})
        finally:
            server.stop()
        return rows


def summary(results: list[Result]) -> dict[str, object]:
    """What the rounds of one side showed."""
    return {
        "rate": spread([result.rate for result in results]),
        "p50_us": statistics.median(result.p50_us for result in results),
        "p99_us": statistics.median(result.p99_us for result in results),
        "server_cpu": statistics.median(result.server_cpu for result in results),
        "other_cpu_max": max(result.other_cpu for result in results),
        "rounds": [result.as_dict() for result in results],
    }


def write_cells(folder: Path) -> list[Cell]:
    """Durable writes: every one differs from what is stored."""
    ours = wire.bodies_of(folder / "register", wire.register, KEYS)
    theirs = wire.bodies_of(folder / "put", wire.put, KEYS)
    asked = {(1, 1): "p50 no worse", (1, 128): "2.2", (8, 16): "3.0", (8, 128): "3.0"}
    cells = []
    for connections, streams in WRITE_SHAPES:
        shape: dict[str, Any] = {
            "connections": connections, "streams": streams, "counter_bytes": 8,
        }  # fmt: skip
        cells.append(
            Cell(
                title="durable register / put",
                shape=f"{connections}×{streams}",
                ours=Load(path=wire.REGISTRY + "Register", bodies=ours, **shape),
                theirs=Load(path=wire.ETCD_KV + "Put", bodies=theirs, **shape),
                asked=asked.get((connections, streams), "–"),
            )
        )
    return cells


def read_cells(folder: Path) -> list[Cell]:
    """Linearizable reads of one key out of `KEYS`."""
    ours = wire.bodies_of(folder / "get", wire.get, KEYS)
    theirs = wire.bodies_of(folder / "range", wire.range_one, KEYS)
    return [
        Cell(
            title="linearizable get / range",
            shape=f"{connections}×{streams}",
            ours=Load(
                path=wire.REGISTRY + "Get", bodies=ours, connections=connections, streams=streams
            ),
            theirs=Load(
                path=wire.ETCD_KV + "Range",
                bodies=theirs,
                connections=connections,
                streams=streams,
            ),
            asked="2.4" if (connections, streams) == (1, 128) else "–",
        )
        for connections, streams in READ_SHAPES
    ]


def fill(bench: Bench, ours: Server, theirs: Server) -> None:
    """Writes every key of the read cells once."""
    folder = bench.fresh("fill")
    register = wire.bodies_of(folder / "register", wire.register, KEYS)
    put = wire.bodies_of(folder / "put", wire.put, KEYS)
    first = Load(path=wire.REGISTRY + "Register", bodies=register, streams=64, counter_bytes=8)
    second = Load(path=wire.ETCD_KV + "Put", bodies=put, streams=64, counter_bytes=8)
    bench.driver.load_all(ours.address, first, KEYS)
    bench.driver.load_all(theirs.address, second, KEYS)


def grant_ours(address: str) -> list[int]:
    """Registers gateways with leases, over HTTP, and answers the leases."""
    connection = http.client.HTTPConnection(address, timeout=60)
    leases: list[int] = []
    for start in range(0, LEASES, 500):
        operations = [
            {
                "register": {
                    "kind": "gateway",
                    "region": "global",
                    "gateway_ip": "12.34.56.78",
                    "gateway_domain": wire.name_of(number),
                    "gateway_port": 4000,
                    "capacity": {"cpu": 1, "bandwidth": 20, "memory": 4096, "storage": 40960},
                    "ttl_ms": 3_600_000,
                }
            }
            for number in range(start, start + 500)
        ]
        body = json.dumps({"operations": operations})
        connection.request("POST", "/v1/batch", body, {"content-type": "application/json"})
        answer = json.load(connection.getresponse())
        leases += [int(result["register"]["lease_id"]) for result in answer["results"]]
    connection.close()
    return leases


def renew_cells(bench: Bench, ours: Server, theirs: Server) -> list[Cell]:
    """Renewals of leases that were granted on both sides just before."""
    folder = bench.fresh("renew")
    leases = grant_ours(ours.address)
    grants = wire.write_bodies(
        folder / "grant", (wire.lease_grant(number + 1, 3600) for number in range(LEASES))
    )
    load = Load(path=wire.ETCD_LEASE + "LeaseGrant", bodies=grants, streams=64)
    bench.driver.load_all(theirs.address, load, LEASES)
    single = wire.write_bodies(folder / "single", (wire.renew([lease]) for lease in leases))
    packs = (leases[start : start + PACKED] for start in range(0, LEASES, PACKED))
    packed = wire.write_bodies(folder / "packed", (wire.renew(pack) for pack in packs))
    alive = wire.write_bodies(
        folder / "alive", (wire.lease_keep_alive(number + 1) for number in range(LEASES))
    )
    cells = []
    for connections, streams in RENEW_SHAPES:
        etcd_load = Load(
            path=wire.ETCD_LEASE + "LeaseKeepAlive",
            bodies=alive,
            connections=connections,
            streams=streams,
            keep_open=True,
        )
        our_load = Load(
            path=wire.REGISTRY + "KeepAlive",
            bodies=single,
            connections=connections,
            streams=streams,
            keep_open=True,
        )
        shape = f"{connections}×{streams}"
        cells.append(Cell(title="renewal, one lease", shape=shape, ours=our_load, theirs=etcd_load))
    pack_load = Load(path=wire.REGISTRY + "Renew", bodies=packed, per_request=PACKED)
    best = cells[-1].theirs
    title = f"renewal, {PACKED} leases a call"
    cells.append(Cell(title=title, shape="1×1 / 8×16", ours=pack_load, theirs=best))
    return cells
