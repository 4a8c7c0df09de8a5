"""Delays packets in one direction: the script that runs in the sending host.

Routing hands it packets through a TUN device, and it writes them back later, from where they go
their way. It works on packets, so connections that exist already are delayed, too, and what is
sent in the other direction isn't. Standard input has a profile by address as JSON lines; when it
closes the script ends, and packets take the direct way again.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x0001 | 0x1000
PACKET_BYTES_MAX = 1 << 16
QUEUE_MAX = 20_000
"""Packets that wait at most; more are lost, as in a router."""


class Path:
    """What happens on the way to one address."""

    def __init__(self, profile: dict[str, float], seed: int) -> None:
        self.profile = profile
        self.chance = random.Random(seed)
        self.busy_until = 0.0
        self.last = 0.0

    def times(self, now: float, size: int) -> list[float]:
        """When copies of a packet arrive: none if it is lost, two if it is doubled."""
        get = self.profile.get
        if now > get("until", float("inf")):
            return [now]
        if self.chance.random() < get("loss", 0.0):
            return []
        begin = now
        if get("bytes_per_s"):
            self.busy_until = max(now, self.busy_until) + size / get("bytes_per_s", 1.0)
            begin = self.busy_until
        copies = 2 if self.chance.random() < get("duplicate", 0.0) else 1
        found = []
        for _ in range(copies):
            jitter = get("jitter_s", 0.0)
            due = begin + max(0.0, get("delay_s", 0.0) + self.chance.uniform(-jitter, jitter))
            if self.chance.random() < get("reorder", 0.0):
                # It overtakes those that wait.
                due = begin
            else:
                due = self.last = max(due, self.last)
            found.append(due)
        return found


def main(name: str) -> None:
    """Delays until standard input closes."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    paths: dict[bytes, Path] = {}
    queue: list[tuple[float, int, bytes]] = []
    numbers = itertools.count()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(tun, select.POLLIN)
    text = b""
    while True:
        wait = None
        if queue:
            # Rounded down, with a short spin at the end: a ms is much where links are quick.
            wait = max(0, int((queue[0][0] - time.monotonic()) * 1000))
        for ready, _ in poll.poll(wait):
            if ready == tun:
                packet = os.read(tun, PACKET_BYTES_MAX)
                now = time.monotonic()
                path = paths.get(packet[16:20])
                due = path.times(now, len(packet)) if path else [now]
                for each in due if len(queue) < QUEUE_MAX else ():
                    heapq.heappush(queue, (each, next(numbers), packet))
                continue
            data = os.read(0, PACKET_BYTES_MAX)
            if not data:
                return
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                address = bytes(map(int, message["address"].split(".")))
                paths[address] = Path(message["profile"], message["seed"])
                sys.stdout.write("done\n")
                sys.stdout.flush()
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            os.write(tun, heapq.heappop(queue)[2])


if __name__ == "__main__":
    main(sys.argv[1])
