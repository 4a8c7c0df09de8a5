"""Hosts, cuts, losses and delays: what gets through between real network stacks, and heals."""

import contextlib
import select
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from nemesis.hosts import CONTROL, Hosts, sweep
from nemesis.lab import Lab, NemesisError, UnavailableError
from nemesis.links import Links, Profile
from nemesis.partition import Partitions, between, each_one_way, isolated, one_way, ring
from nemesis.processes import Processes, wait_until

PORT = 7_000
PROBE = struct.Struct("!Bd")


@contextlib.contextmanager
def hosts_or_skip(folder, count):
    with Lab(folder) as lab:
        made = Hosts(lab, count)
        yield made


@pytest.fixture
def hosts(tmp_path):
    with hosts_or_skip(tmp_path, 3) as made:
        yield made


class Probes:
    """A UDP socket in every host; datagrams say who sent them, and when."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.names = list(hosts.names)
        self.sockets = {}
        for name in self.names:
            with hosts.entered(name):
                self.sockets[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sockets[name].bind((hosts.address(name), PORT))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.sockets.values():
            each.close()

    def send(self, source, target):
        data = PROBE.pack(self.names.index(source), time.monotonic())
        with contextlib.suppress(OSError):
            self.sockets[source].sendto(data, (self.hosts.address(target), PORT))

    def receive(self, target, seconds):
        """Who was heard, and how long it took; none if nothing comes."""
        if not select.select([self.sockets[target]], [], [], seconds)[0]:
            return None
        number, sent = PROBE.unpack(self.sockets[target].recv(64))
        return self.names[number], time.monotonic() - sent

    def lost(self):
        """The directions in which a datagram doesn't get through."""
        missing = {(a, b) for a in self.names for b in self.names if a != b}
        for source, target in sorted(missing):
            self.send(source, target)
        for target in self.names:
            while (heard := self.receive(target, 0.02)) is not None:
                missing.discard((heard[0], target))
        return missing


def check_cut(partitions, probes, pairs):
    with partitions.cut(pairs):
        wait_until(f"{pairs} are cut", lambda: probes.lost() == set(pairs), 5)
    wait_until("healed", lambda: not probes.lost(), 5)


@pytest.mark.parametrize("use_nft", [True, False])
def test_each_direction_is_cut_on_its_own(hosts, use_nft):
    if use_nft and shutil.which("nft") is None:
        pytest.skip("needs nft: install the package nftables")
    partitions = Partitions(hosts, use_nft)
    with Probes(hosts) as probes:
        wait_until("all are heard", lambda: not probes.lost(), 5)
        for pairs in each_one_way(hosts.names):
            check_cut(partitions, probes, pairs)
        check_cut(partitions, probes, isolated("n2", hosts.names))


def test_overlapping_cuts_heal_by_themselves(hosts):
    partitions = Partitions(hosts)
    with Probes(hosts) as probes:
        first = partitions.cut(one_way("n1", "n2"))
        second = partitions.cut(isolated("n1", hosts.names))
        first.heal()
        assert probes.lost() == set(isolated("n1", hosts.names))
        second.heal()
        second.heal()
        wait_until("healed", lambda: not probes.lost(), 5)


def test_shapes():
    five = ("a", "b", "c", "d", "e")
    cut = set(ring(five))
    for one in five:
        near = {each for each in five if each == one or (each, one) not in cut}
        assert len(near) == 3
    assert set(ring(five[:3])) == set(between("a", "c"))
    for count in range(3, 9):
        many = [f"n{number}" for number in range(count)]
        cut = set(ring(many))
        assert cut
        seen = [frozenset(b for b in many if a == b or (b, a) not in cut) for a in many]
        assert len(set(seen)) == count
        assert all(len(each) > count / 2 for each in seen)
    assert len(each_one_way(five[:3])) == 6
    assert set(between("ab", "c")) == {("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")}


def test_loss_is_a_share_of_the_packets_of_one_direction(hosts):
    partitions = Partitions(hosts)
    with Probes(hosts) as probes:
        fault = partitions.lose(one_way("n1", "n2"), 30)
        heard = {}
        for source, target in (("n1", "n2"), ("n2", "n1")):
            heard[target] = 0
            for _ in range(400):
                probes.send(source, target)
                heard[target] += probes.receive(target, 0) is not None
            while probes.receive(target, 0.05) is not None:
                heard[target] += 1
        # Six standard deviations around 280.
        assert 225 <= heard["n2"] <= 335
        assert heard["n1"] == 400
        fault.heal()


def one_way_ms(probes, source, target):
    """The quickest of some: the machine may be busy."""
    times = []
    for _ in range(8):
        probes.send(source, target)
        name, seconds = probes.receive(target, 5)
        assert name == source
        times.append(seconds * 1000)
    return min(times)


def test_delay_is_added_in_one_direction_only(hosts):
    links = Links(hosts)
    with Probes(hosts) as probes:
        assert one_way_ms(probes, "n1", "n2") < 20
        with links.shape(one_way("n1", "n2"), Profile(delay_ms=60, jitter_ms=5)):
            assert 50 <= one_way_ms(probes, "n1", "n2") < 90
            assert one_way_ms(probes, "n2", "n1") < 20
            assert one_way_ms(probes, "n1", "n3") < 20
        assert one_way_ms(probes, "n1", "n2") < 20


def echo(hosts, name):
    with hosts.entered(name):
        server = socket.create_server((hosts.address(name), PORT + 1))

    def serve():
        with server, contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()


def connect(hosts, source, target):
    with hosts.entered(source):
        connection = socket.create_connection((hosts.address(target), PORT + 1), 5)
    connection.settimeout(10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def round_trip_ms(connection, data=b"x"):
    began = time.monotonic()
    connection.sendall(data)
    left = len(data)
    while left:
        left -= len(connection.recv(left))
    return (time.monotonic() - began) * 1000


def test_connections_that_exist_are_delayed_too(hosts):
    links = Links(hosts)
    echo(hosts, "n2")
    with connect(hosts, "n1", "n2") as connection:
        assert min(round_trip_ms(connection) for _ in range(5)) < 20
        with links.shape(one_way("n2", "n1"), Profile(delay_ms=40)):
            trips = [round_trip_ms(connection) for _ in range(5)]
            assert 40 <= min(trips) < 75
            # More than one segment, so that their order and their sums are right.
            assert round_trip_ms(connection, b"y" * 100_000) < 5_000
        assert min(round_trip_ms(connection) for _ in range(5)) < 20


def test_a_bad_link_doubles_reorders_and_loses(hosts):
    links = Links(hosts)
    profile = Profile(delay_ms=10, reorder=0.2, duplicate=0.2, loss=0.2)
    with Probes(hosts) as probes, links.shape(one_way("n1", "n2"), profile, seed=7):
        for number in range(200):
            with contextlib.suppress(OSError):
                data = PROBE.pack(0, number)
                probes.sockets["n1"].sendto(data, (hosts.address("n2"), PORT))
        numbers = []
        while select.select([probes.sockets["n2"]], [], [], 0.3)[0]:
            numbers.append(PROBE.unpack(probes.sockets["n2"].recv(64))[1])
    assert 120 < len(set(numbers)) < 195
    assert len(numbers) > len(set(numbers))
    assert numbers != sorted(numbers)


def test_a_slow_host_sends_slowly(hosts):
    links = Links(hosts)
    echo(hosts, "n2")
    with connect(hosts, "n1", "n2") as connection:
        quick = round_trip_ms(connection, b"z" * 100_000)
        with links.slow("n1", 200_000):
            slow = round_trip_ms(connection, b"z" * 100_000)
        assert slow > 250
        assert slow > 3 * quick
        assert round_trip_ms(connection, b"z" * 100_000) < slow


def test_processes_run_in_hosts_and_reach_each_other(hosts):
    processes = Processes(hosts.lab, hosts)
    server = textwrap.dedent("""
        import http.server, sys
        handler = http.server.SimpleHTTPRequestHandler
        http.server.HTTPServer((sys.argv[1], 8080), handler).serve_forever()
    """)
    web = processes.start("web", [sys.executable, "-c", server, hosts.address("n1")], "n1")
    web.wait_for_port(8080)
    ask = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).status)"
    url = f"http://{hosts.address('n1')}:8080/"
    for client in ("n2", CONTROL):
        assert hosts.run(client, [sys.executable, "-c", ask, url]).strip() == "200"
    outside = subprocess.run(["ip", "addr"], capture_output=True, text=True).stdout
    assert hosts.address("n1").rsplit(".", 1)[0] not in outside


LEFT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from nemesis.hosts import Hosts
from nemesis.lab import Lab
from nemesis.partition import Partitions, one_way
from nemesis.processes import Processes
lab = Lab(Path(sys.argv[2]))
hosts = Hosts(lab, 2)
Partitions(hosts).cut(one_way("n1", "n2"))
child = Processes(lab, hosts).start("sleeper", ["sleep", "1000"], "n1")
if sys.argv[3] == "both":
    lab.watchdog.process.kill()
print(lab.name, child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(tmp_path, what):
    command = [sys.executable, "-c", LEFT, str(Path(__file__).parent), str(tmp_path), what]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert said.stdout, said.stderr
    name, pid = said.stdout.split()
    return name, int(pid)


def left(name):
    return [path.name for path in Path("/run/netns").glob(f"{name}-*")]


def test_the_watchdog_clears_away_after_a_killed_test(hosts, tmp_path):
    name, pid = leave(tmp_path, "itself")
    wait_until("its hosts are gone", lambda: not left(name), 10)
    wait_until("its process is gone", lambda: not Path(f"/proc/{pid}").exists(), 10)


def test_the_next_run_sweeps_what_even_the_watchdog_left(hosts, tmp_path):
    name, pid = leave(tmp_path, "both")
    assert len(left(name)) == 4
    swept = sweep()
    assert {each for each in swept if each.startswith(name)} or not left(name)
    wait_until("its process is gone", lambda: not Path(f"/proc/{pid}").exists(), 10)
    assert len(left(hosts.lab.name)) == 5, "the living keep theirs"


def test_a_cut_ends_with_its_time(hosts):
    partitions = Partitions(hosts)
    with Probes(hosts) as probes:
        fault = partitions.cut(isolated("n1", hosts.names), seconds=0.3)
        wait_until("the watchdog heals it", lambda: not probes.lost(), 10)
        fault.heal()


def test_impossible_hosts_are_refused(tmp_path):
    with Lab(tmp_path) as lab, pytest.raises((NemesisError, UnavailableError)):
        Hosts(lab, 0)
