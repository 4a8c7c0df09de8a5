"""Cuts and losses between hosts, for each direction on its own.

Packets are dropped where they arrive, by the sender's address, which is what makes one-way cuts
possible: the sender notices nothing but silence. Several faults may touch the same pair; each
heals by itself. Without nftables cuts are made by routing rules, and there is no loss.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, permutations, product

from nemesis.hosts import Hosts
from nemesis.lab import GUARD_S, Fault, need_tool, run
from nemesis.watchdog import Action

Pair = tuple[str, str]
"""From whom, to whom."""
PREFERENCE = "500"
"""The place of our routing rules among others."""
LOCAL_PREFERENCE = "505"
PARTS = 10_000


def one_way(source: str, target: str) -> list[Pair]:
    """The target hears nothing of the source."""
    return [(source, target)]


def between(left: Iterable[str], right: Iterable[str]) -> list[Pair]:
    """Two sides, such as a majority and a minority, hear nothing of each other."""
    return [pair for a, b in product(tuple(left), tuple(right)) for pair in ((a, b), (b, a))]


def isolated(name: str, everyone: Iterable[str]) -> list[Pair]:
    """One host against all others."""
    return between([name], [each for each in everyone if each != name])


def ring(everyone: Sequence[str]) -> list[Pair]:
    """Everyone reaches a majority, and no two the same one: neighbours in a ring, or in a line.

    Of three hosts one reaches both others, which do not reach each other.
    """
    count = len(everyone)
    near = -(-(count // 2) // 2)
    cut = []
    for a, b in combinations(range(count), 2):
        apart = b - a if count <= 3 else min(b - a, count - (b - a))
        if apart > near:
            cut += between([everyone[a]], [everyone[b]])
    return cut


def each_one_way(everyone: Iterable[str]) -> list[list[Pair]]:
    """All cases of a single one-way cut: six of them for three hosts."""
    return [one_way(a, b) for a, b in permutations(tuple(everyone), 2)]


class Partitions:
    """What is cut and what is lost between the hosts of a lab."""

    def __init__(self, hosts: Hosts, use_nft: bool | None = None) -> None:
        self.hosts = hosts
        self._cuts: Counter[Pair] = Counter()
        self._losses: Counter[tuple[Pair, int]] = Counter()
        path = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin")
        self._nft = path is not None if use_nft is None else use_nft
        for name in () if self._nft else hosts.names:
            # Usually a host looks for its own addresses first, and would never get to our rules.
            lines = [f"rule add pref {LOCAL_PREFERENCE} lookup local", "rule del pref 0"]
            run(["ip", "-n", hosts.namespace(name), "-batch", "-"], "\n".join(lines))

    def cut(self, pairs: Iterable[Pair], name: str = "cut", seconds: float = GUARD_S) -> Fault:
        """Cuts these directions until it is healed."""
        cuts = Counter(pairs)
        return self._fault(name, cuts, Counter(), seconds)

    def lose(
        self, pairs: Iterable[Pair], percent: float, name: str = "", seconds: float = GUARD_S
    ) -> Fault:
        """Loses that share of the packets of these directions, each by chance.

        Raises:
            UnavailableError: without nftables.
        """
        need_tool("nft", "nftables")
        share = round(percent * PARTS / 100)
        losses = Counter((pair, share) for pair in pairs)
        return self._fault(name or f"{percent:g} % loss", Counter(), losses, seconds)

    def heal(self) -> None:
        """Heals whatever is cut or lost."""
        touched = {target for _, target in self._cuts} | {pair[1] for pair, _ in self._losses}
        self._cuts.clear()
        self._losses.clear()
        for target in touched:
            self._apply(target)

    def _fault(
        self,
        name: str,
        cuts: Counter[Pair],
        losses: Counter[tuple[Pair, int]],
        seconds: float,
    ) -> Fault:
        targets = sorted({target for _, target in cuts} | {pair[1] for pair, _ in losses})

        def make() -> None:
            self._cuts += cuts
            self._losses += losses
            self._apply_all(targets)

        def heal() -> None:
            self._cuts -= cuts
            self._losses -= losses
            self._apply_all(targets)

        undo = [self._undo(target) for target in targets]
        return self.hosts.lab.fault(name, make, heal, undo, seconds)

    def _undo(self, target: str) -> Action:
        namespace = self.hosts.namespace(target)
        if self._nft:
            return self.hosts.command(target, ["nft", "delete table inet agni"])
        once = f"ip -n {namespace} rule del pref {PREFERENCE} 2>/dev/null"
        return ["sh", "-c", f"while {once}; do :; done"]

    def _apply_all(self, targets: Iterable[str]) -> None:
        for target in targets:
            self._apply(target)

    def _apply(self, target: str) -> None:
        """Makes a host drop exactly what is to be dropped, in one step."""
        cut = sorted({self.hosts.address(a) for a, b in self._cuts if b == target})
        if not self._nft:
            run(self._undo(target))
            rule = f"rule add pref {PREFERENCE} iif eth0 blackhole from"
            lines = "\n".join(f"{rule} {address}" for address in cut)
            run(["ip", "-n", self.hosts.namespace(target), "-batch", "-"], lines)
            return
        drops = [f"ip saddr {{ {', '.join(cut)} }} drop"] if cut else []
        for (source, to), share in sorted(self._losses):
            if to == target:
                chance = f"numgen random mod {PARTS} < {share}"
                drops.append(f"ip saddr {self.hosts.address(source)} {chance} drop")
        chain = "\n".join(["type filter hook input priority 0; policy accept;", *drops])
        table = "table inet agni"
        # Named once first, so that deleting it never fails; all of it is one transaction.
        rules = f"{table}\ndelete {table}\n{table} {{\nchain input {{\n{chain}\n}}\n}}\n"
        self.hosts.run(target, ["nft", "-f", "-"], rules)
