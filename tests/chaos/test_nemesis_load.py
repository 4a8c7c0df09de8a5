"""A real node under load and faults, judged by all checkers, with a report: the whole machinery."""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from history import Outcome, Recorder, read_history
from lease_check import Takeover
from loopback_ports import free_port
from nemesis.clocks import Clock
from nemesis.judge import judge, read_run
from nemesis.load import (
    GROUP_CLIENTS_MAX,
    KEY_OPERATIONS_MAX,
    Leases,
    Load,
    Shape,
    last_revisions,
)
from nemesis.processes import Processes, wait_until
from nemesis.watches import Watcher
from report import write_report

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = [REPOSITORY / "src", REPOSITORY / "node" / "python", Path(__file__).parent]
PYTHONPATH = {"PYTHONPATH": os.pathsep.join([*map(str, FOLDERS), os.environ.get("PYTHONPATH", "")])}
TTL_MS = 1_500


class Node:
    """One real node in a process that may be broken."""

    def __init__(self, lab, env=None):
        self.address = f"127.0.0.1:{free_port()}"
        settings = {
            "data_dir": str(lab.folder / "data"),
            "listen": self.address,
            "partitions": 4,
            "wal_segment_bytes": 1 << 20,
            "disk_reserve_bytes": 1 << 20,
        }
        config = lab.folder / "node.yaml"
        config.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in settings.items()))
        argv = [sys.executable, "-m", "agniregistry_node", "run", "--config", str(config)]
        self.processes = Processes(lab)
        self.process = self.processes.add("node", argv, env={**PYTHONPATH, **(env or {})})
        self.start()

    def start(self):
        self.process.start()
        self.ready()

    def ready(self):
        self.process.wait_for_port(int(self.address.rsplit(":", 1)[1]))


def test_kills_and_pauses_under_load(lab):
    node = Node(lab)
    takeovers = []
    watchers = [
        Watcher([node.address], lab.folder / "log.watch"),
        Watcher([node.address], lab.folder / "g0.watch", "g0-"),
    ]
    for watcher in watchers:
        assert watcher.created.wait(10)
    with Recorder(lab.folder / "history.jsonl") as recorder:
        leases = Leases(node.address, recorder, 20, TTL_MS)
        load = Load([node.address], recorder, 7, Shape(clients=10, timeout_ms=500))

        def more(count, what="ok"):
            wanted = load.counts[what] + count
            wait_until(f"{count} more are {what}", lambda: load.counts[what] >= wanted, 30)

        wait_until("all leases are held", lambda: len(leases.held) == 20, 10)
        more(500)
        for _ in range(2):
            with node.process.crash() as fault:
                # Until clients have noticed.
                more(10, "CONNECTION_FAILED")
            node.ready()
            takeovers.append(Takeover(fault.began_ns, time.monotonic_ns()))
            more(300)
        with node.process.pause():
            more(5, "DEADLINE_EXCEEDED")
        more(500)
        wait_until("leases are renewed", lambda: leases.renewed > 60, 10)
        load.stop()
        leases.stop()
    ends = last_revisions([node.address])
    for watcher in watchers:
        assert watcher.wait_for(ends, 10)
        watcher.close()
    run = read_run(lab.folder, takeovers, ends=ends)
    violations = judge(run)
    page = write_report(lab.folder, "kills-and-pauses", run.operations, lab.spans(), violations)
    print(page.read_text())
    assert not violations
    assert not leases.lost
    check_shape(run)
    assert run.log is not None
    assert all(len(chain) >= 3 for chain in run.chains), "each kill breaks the watches"
    ET.fromstring(page.with_suffix(".svg").read_text())
    assert [name for name, *_ in lab.spans()] == ["kill node", "kill node", "pause node"]


def check_shape(run):
    """The history is one that the checkers can judge, and says something."""
    plain = [each for each in run.operations if each.key.startswith("g")]
    counts = Counter(each.key for each in plain)
    assert max(counts.values()) <= KEY_OPERATIONS_MAX
    for key in counts:
        assert len({each.proc for each in plain if each.key == key}) <= GROUP_CLIENTS_MAX
    kinds = {(each.f, each.outcome) for each in plain}
    for f in ("register", "update", "deregister", "get"):
        assert (f, Outcome.OK) in kinds
    assert ("register", Outcome.FAIL) in kinds, "some are refused for what the record is"
    assert any(each.outcome is Outcome.INFO and each.is_write for each in plain)
    assert any(each.request.consistency == "stale" and each.reply.value for each in plain)
    assert sum(each.f == "renew" and each.outcome is Outcome.OK for each in run.operations) > 20


def test_load_from_a_process_of_its_own(lab):
    node = Node(lab)
    folder = lab.folder / "load"
    argv = [sys.executable, "-m", "nemesis.load", "--addresses", node.address]
    argv += ["--folder", str(folder), "--clients", "3", "--leases", "2"]
    load = node.processes.start("load", argv, env=PYTHONPATH)
    load.wait_for_line("ready")
    wait_until("it works", lambda: len(read_history(folder / "history.jsonl")) > 200, 20)
    assert load.stop() == 0, load.text()
    run = read_run(folder)
    assert run.ends
    assert not judge(run)
    assert run.writes > 50


def test_what_a_lost_disk_does_is_found(lab):
    """The judge isn't blind: a node that comes back with an older state breaks promises."""
    node = Node(lab)
    with Recorder(lab.folder / "history.jsonl") as recorder:
        load = Load([node.address], recorder, 3, Shape(clients=4, stale=0))
        wait_until("it works", lambda: load.counts["ok"] > 200, 20)
        with node.process.crash():
            (lab.folder / "data").rename(lab.folder / "old")
        node.ready()
        more = load.counts["ok"] + 400
        wait_until("it works again", lambda: load.counts["ok"] > more, 20)
        load.stop()
    rules = {each.rule for each in judge(read_run(lab.folder))}
    assert {"I1", "I2", "version order (a)"} <= rules


def test_the_wall_clock_of_a_node_does_not_matter(lab):
    clock = Clock(lab, "node")
    node = Node(lab, clock.environment())
    with Recorder(lab.folder / "history.jsonl") as recorder:
        leases = Leases(node.address, recorder, 5, 1_500)
        wait_until("all leases are held", lambda: len(leases.held) == 5, 10)

        def more_renewals(count):
            wanted = leases.renewed + count
            wait_until("leases are renewed", lambda: leases.renewed >= wanted, 10)

        for offset in (3_600, -3_600):
            with clock.jump(offset):
                more_renewals(10)
        leases.stop()
    assert not leases.lost
    assert not judge(read_run(lab.folder))
