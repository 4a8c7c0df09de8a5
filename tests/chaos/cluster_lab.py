"""A cluster of real nodes on hosts of its own, with load from a host that no fault touches."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from history import Operation, Outcome, Violation
from lease_check import Takeover
from nemesis import access
from nemesis.hosts import CONTROL, Hosts
from nemesis.judge import Run, judge, read_run
from nemesis.lab import Fault, Lab
from nemesis.partition import Partitions
from nemesis.processes import Process, Processes, wait_until
from report import write_report
from write_gaps import Acknowledged, Kill, Led, beginnings_ns, notes, of_faults, told

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = [REPOSITORY / "src", REPOSITORY / "node" / "python", Path(__file__).parent]
PYTHONPATH = {"PYTHONPATH": os.pathsep.join([*map(str, FOLDERS), os.environ.get("PYTHONPATH", "")])}
CLIENT_PORT = 7400
PEER_PORT = 7401
NS_PER_MS = 1_000_000
READY_S = 30.0
FILL_S = 600.0
CATCH_UP_S = 30.0
MORE_S = 30.0
STEP = 20
OK = b'"class":"ok"'


class Load:
    """The load's process, seen through the history that it writes."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._read = 0
        self._ok = 0

    @property
    def ok(self) -> int:
        """Operations that were answered so far."""
        with (self.folder / "history.jsonl").open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self._ok += whole.count(OK)
        return self._ok

    def more(self, count: int, seconds: float = MORE_S) -> None:
        """Waits until so many more operations were answered."""
        wanted = self.ok + count
        wait_until(f"{count} more operations are answered", lambda: self.ok >= wanted, seconds)

    def go_on(self, seconds: float) -> None:
        """Waits for so long, and then until something is answered."""
        ended = time.monotonic() + seconds
        while (left := ended - time.monotonic()) > 0:
            self.more(STEP, left + MORE_S)

    def stop(self) -> None:
        """Lets every client finish what it has begun."""
        assert self.process.stop() == 0, self.process.text()[-2_000:]


def p99_ms(operations: Sequence[Operation], began_ns: int, ended_ns: int) -> float:
    """Of what was called in between and answered."""
    times = sorted(
        each.return_ns - each.call_ns
        for each in operations
        if each.return_ns is not None and each.outcome is not Outcome.INFO
        if began_ns <= each.call_ns < ended_ns
    )
    return times[math.ceil(0.99 * len(times)) - 1] / NS_PER_MS


class ClusterLab:
    """Nodes n1, n2, ... each on a host of its own."""

    def __init__(
        self,
        lab: Lab,
        count: int = 3,
        partitions: int = 4,
        spares: int = 0,
        replication: int = 3,
        data_dirs: Mapping[str, Path] = MappingProxyType({}),
        environments: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
        mtls: bool = False,
    ) -> None:
        """Founds a cluster and waits until all its nodes serve; spares are not started. Some nodes
        may have their data elsewhere, or more in their environment. With `mtls` nodes and clients
        prove to each other who they are; the hosts are namespaces of this machine, so without it
        nobody else reaches them either."""
        self.lab = lab
        self.partitions = partitions
        self._replication = replication
        self._data_dirs = data_dirs
        self._environments = environments
        self.hosts = Hosts(lab, count + spares)
        self.names = list(self.hosts.names)[:count]
        self.spares = list(self.hosts.names)[count:]
        self._tls_dir = lab.folder / "ca" if mtls else None
        if self._tls_dir is not None:
            names = self.hosts.names
            access.make_certificates(self._tls_dir, {n: self.hosts.address(n) for n in names})
        self._https = access.https(self._tls_dir)
        self.network = Partitions(self.hosts)
        self.processes = Processes(lab, self.hosts)
        self.nodes = {name: self._node(name) for name in [*self.names, *self.spares]}
        self.takeovers: list[Takeover] = []
        self.kills: list[Kill] = []
        self._notes: list[str] = []
        for name in self.names:
            self.nodes[name].start()
        self.wait_ready()

    def _node(self, name: str) -> Process:
        host = self.hosts.address(name)
        settings = {
            "name": name,
            "data_dir": str(self.data_dir(name)),
            "listen": f"{host}:{CLIENT_PORT}",
            "peer_listen": f"{host}:{PEER_PORT}",
            **({"tls_dir": str(self._tls_dir)} if self._tls_dir else {"insecure": True}),
            "seeds": ",".join(f"{self.hosts.address(each)}:{PEER_PORT}" for each in self.names),
            "partitions": self.partitions,
            "replication": self._replication,
            "wal_segment_bytes": 1 << 20,
            "snapshot_wal_bytes": 1 << 20,
            "disk_reserve_bytes": 1 << 20,
        }
        config = self.lab.folder / f"{name}.yaml"
        config.write_text("".join(f"{key}: {json.dumps(v)}\n" for key, v in settings.items()))
        argv = [sys.executable, "-m", "agniregistry_node", "run", "--config", str(config)]
        env = {**PYTHONPATH, **self._environments.get(name, {})}
        return self.processes.add(name, argv, host=name, env=env)

    def data_dir(self, name: str) -> Path:
        """Where a node keeps everything."""
        return self._data_dirs.get(name, self.lab.folder / f"data-{name}")

    def address(self, name: str) -> str:
        """host:port of a node for clients; known on the lab's hosts only."""
        return f"{self.hosts.address(name)}:{CLIENT_PORT}"

    def _url(self, name: str, path: str) -> str:
        return f"{'https' if self._https else 'http'}://{self.address(name)}{path}"

    def text(self, name: str, path: str) -> str | None:
        """What a node answers over HTTP; None where it doesn't."""
        with self.hosts.entered(CONTROL):
            try:
                url = self._url(name, path)
                with urllib.request.urlopen(url, timeout=1, context=self._https) as answer:
                    return str(answer.read(), "utf-8")
            except (urllib.error.URLError, OSError, ValueError):
                return None

    def get(self, name: str, path: str) -> Any:
        """The same, of an answer in JSON."""
        text = self.text(name, path)
        return None if text is None else json.loads(text)

    def metric(self, metric: str) -> float:
        """The sum over all nodes of a metric without labels."""
        pages = [self.text(name, "/metrics") or "" for name in self.names]
        lines = [line.split() for page in pages for line in page.splitlines()]
        return sum(float(line[1]) for line in lines if line[0] == metric)

    def ask(self, name: str, path: str, body: Any = None) -> tuple[int, Any, Mapping[str, str]]:
        """A node's answer over HTTP, whatever it is: status, what it says, and its headers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url(name, path), data)
        with self.hosts.entered(CONTROL):
            try:
                with urllib.request.urlopen(request, timeout=10, context=self._https) as answer:
                    return answer.status, json.load(answer), answer.headers
            except urllib.error.HTTPError as error:
                return error.code, json.load(error), error.headers

    def wait_ready(self, names: Sequence[str] = ()) -> None:
        """Waits until these nodes, or all, serve."""
        for name in names or self.names:
            wait_until(f"{name} is ready", lambda: self.get(name, "/readyz"), READY_S)  # noqa: B023

    def leaders(self) -> dict[int, str]:
        """Who leads which partition, as most nodes see it."""
        votes: dict[int, list[str]] = {}
        for name in self.names:
            routing = self.get(name, "/v1/routing") or {"partitions": [], "members": []}
            names = self._names(routing)
            for route in routing["partitions"]:
                if leader := names.get(int(route["leader_id"])):
                    votes.setdefault(route["partition"], []).append(leader)
        return {partition: max(set(seen), key=seen.count) for partition, seen in votes.items()}

    def _names(self, routing: Any) -> dict[int, str]:
        """The nodes by their identity, which is another one after a wipe."""
        by_address = {self.address(name): name for name in self.nodes}
        members = routing["members"]
        return {int(m["node_id"]): by_address[m["client_address"]] for m in members}

    def wait_led(self) -> None:
        """Waits until every partition is led."""
        wait_until(
            "all partitions are led", lambda: len(self.leaders()) == self.partitions, READY_S
        )

    def wait_settled(self) -> None:
        """Waits until every partition is led by the node that should lead it, and nobody who has
        gone votes in the system group: then any node may be taken away."""

        def is_settled() -> bool:
            told = self.get(self.names[0], "/v1/members") or {"placements": [], "members": []}
            placed = told["placements"]
            left = {m["node_id"] for m in told["members"] if m["state"] == "left"}
            votes = set(told.get("system_voters", ()))
            led = bool(placed) and all(p["leader_id"] == p["wanted"][0] for p in placed)
            return led and len(votes) >= 3 and not votes & left

        wait_until("everybody leads what it should", is_settled, READY_S)

    def busiest(self) -> str:
        """The node that leads most."""
        led = list(self.leaders().values())
        return max(self.names, key=led.count)

    def leading(self, names: Sequence[str]) -> str:
        """The one of these nodes that leads most; waits until one of them leads anything."""
        led: list[str] = []

        def look() -> bool:
            led[:] = self.leaders().values()
            return any(name in led for name in names)

        wait_until(f"one of {names} leads something", look, READY_S)
        return max(names, key=led.count)

    def led(self) -> dict[int, Led]:
        """Who says that it leads which partition, in which term; the newest term counts."""
        found: dict[int, Led] = {}
        for name in self.names:
            status = self.get(name, "/v1/status") or {"node_id": "", "partitions": []}
            for each in status["partitions"]:
                partition, term = each["partition"], each["term"]
                newest = partition not in found or term > found[partition].term
                if each["leader_id"] == status["node_id"] and newest:
                    found[partition] = Led(name, term)
        return found

    def load(self, clients: int = 10, leases: int = 0, **more: Any) -> Load:
        """Starts the load."""
        folder = self.lab.folder / "load"
        addresses = ",".join(self.address(name) for name in self.names)
        argv = [sys.executable, "-m", "nemesis.load", "--addresses", addresses]
        argv += ["--folder", str(folder), "--clients", str(clients), "--leases", str(leases)]
        argv += self._credentials
        for name, value in more.items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        process = self.processes.start("load", argv, host=CONTROL, env=PYTHONPATH)
        process.wait_for_line("ready", READY_S)
        return Load(process, folder)

    def callers(self) -> Process:
        """Starts clients that use the SDK as people do; the log's last line says what failed."""
        addresses = ",".join(self.address(name) for name in self.names)
        argv = [sys.executable, "-m", "nemesis.callers", "--addresses", addresses]
        argv += self._credentials
        process = self.processes.start("callers", argv, host=CONTROL, env=PYTHONPATH)
        process.wait_for_line("ready", READY_S)
        return process

    def probe(self) -> Process:
        """Starts somebody who writes to every partition all the time; see `write_gaps_ms`."""
        addresses = ",".join(self.address(name) for name in self.names)
        argv = [sys.executable, "-m", "nemesis.probe", "--addresses", addresses]
        argv += ["--partitions", str(self.partitions), "--into", str(self._probed)]
        argv += self._credentials
        process = self.processes.start("probe", argv, host=CONTROL, env=PYTHONPATH)
        process.wait_for_line("ready", READY_S)
        return process

    @property
    def _credentials(self) -> list[str]:
        """What the run's own clients are told of certificates."""
        return ["--tls-dir", str(self._tls_dir)] if self._tls_dir else []

    @property
    def _probed(self) -> Path:
        return self.lab.folder / "probed.json"

    def tell_gaps(self, probe: Process) -> None:
        """Ends the probe; the report will say how long writes to the partition that was hit worst
        stopped, fault by fault, and after `kill` those that were not hit, too."""
        assert probe.stop() == 0
        read: dict[str, list[tuple[int, int]]] = json.loads(self._probed.read_text())
        assert len(read) == self.partitions
        probed = {int(each): [Acknowledged(*w) for w in writes] for each, writes in read.items()}
        spans = [(began_ns, ended_ns) for _, began_ns, ended_ns in self.lab.spans()]
        gaps = of_faults(probed, beginnings_ns(spans))
        worst = told([max(each.values()) for each in gaps])
        self._notes.append(f"write gap of {len(gaps)} faults: {worst}")
        if self.kills:
            self._notes += notes(probed, self.kills)

    def agnictl(self, *arguments: str) -> Process:
        """Starts the command line against the first node."""
        argv = [sys.executable, "-m", "agniregistry.cli", *arguments]
        argv += ["--address", self.address(self.names[0]), "--timeout", "30s"]
        if tls := access.tls_of(self._tls_dir):
            ca, cert, key = tls.files
            argv += ["--ca", ca, "--cert", cert, "--key", key]
        log_number = len(list(self.lab.folder.glob("agnictl-*.log")))
        name = f"agnictl-{log_number}"
        return self.processes.start(name, argv, host=CONTROL, env=PYTHONPATH)

    def in_turn(self, *arguments: str) -> None:
        """A command of agnictl that ends by itself, and well."""
        process = self.agnictl(*arguments)
        wait_until(f"agnictl {' '.join(arguments)}", lambda: not process.is_running)
        assert process.stop() == 0, process.text()

    def fill(self, records: int) -> None:
        """Registers so many gateways before anything else is done."""
        argv = [sys.executable, "-m", "nemesis.fill", "--address", self.address(self.names[0])]
        argv += ["--records", str(records), *self._credentials]
        process = self.processes.start("fill", argv, host=CONTROL, env=PYTHONPATH)
        wait_until("all are registered", lambda: not process.is_running, FILL_S)
        assert process.stop() == 0, process.text()[-2_000:]

    def records(self, name: str) -> int:
        """How many a node holds itself; 0 where it doesn't answer."""
        status = self.get(name, "/v1/status") or {"partitions": []}
        return sum(int(each["records"]) for each in status["partitions"])

    def replicas(self) -> set[tuple[int, str]]:
        """Which member holds a copy of which partition, as the first node sees it; nothing where it
        doesn't answer."""
        routing = self.get(self.names[0], "/v1/routing") or {"partitions": [], "members": []}
        names = self._names(routing)
        return {
            (route["partition"], names[int(each)])
            for route in routing["partitions"]
            for each in route["replica_ids"]
            if int(each) in names
        }

    def is_whole(self, name: str, records: int) -> bool:
        """Whether a node has a replica of every partition, and at least so many records in them."""
        held = {partition for partition, holder in self.replicas() if holder == name}
        return len(held) == self.partitions and self.records(name) >= records

    def start_until_whole(self, name: str, records: int, seconds: float) -> None:
        """Starts a node, and says how long it takes until it has everything."""
        began = time.monotonic()
        self.nodes[name].start()
        wait_until(f"{name} is whole", lambda: self.is_whole(name, records), seconds)
        print(f"{name}, {records:,} records: whole after {time.monotonic() - began:.1f} s")

    def fault(self, make: Callable[[], Any], settle: Callable[[], None]) -> None:
        """Makes a fault; from its beginning until `settle` returns leaders may have changed."""

        def whole() -> None:
            with make():
                settle()

        self.takeover(whole)

    def kill(self, victim: str, settle: Callable[[], None]) -> None:
        """Kills a node until `settle` returns, and notes what it led."""
        led = self.led()

        def make() -> Fault:
            fault = self.nodes[victim].crash()
            self.kills.append(Kill(victim, fault.began_ns, led))
            return fault

        self.fault(make, settle)

    def takeover(self, work: Callable[[], None]) -> None:
        """Does something by which leaders may change, until all is as it was before."""
        began_ns = time.monotonic_ns()
        work()
        self.wait_ready()
        self.wait_led()
        self.takeovers.append(Takeover(began_ns, time.monotonic_ns()))

    def caught_up(self) -> bool:
        """Whether all nodes have applied as much, and hold the same then."""
        seen = []
        for name in self.names:
            status = self.get(name, "/v1/status")
            if status is None:
                return False
            seen.append(
                [
                    (p["partition"], p["revision"], p["applied_index"], p["state_hash"])
                    for p in status["partitions"]
                ]
            )
        return all(each == seen[0] for each in seen)

    def judge(self, load: Load, title: str) -> tuple[Run, list[Violation]]:
        """Ends the load, waits until all replicas agree, and has every checker look."""
        load.stop()
        wait_until("all replicas agree", self.caught_up, CATCH_UP_S)
        run = read_run(load.folder, self.takeovers)
        violations = judge(run)
        spans = self.lab.spans()
        page = write_report(self.lab.folder, title, run.operations, spans, violations, self._notes)
        print(page.read_text())
        return run, violations
