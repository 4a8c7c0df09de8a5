"""`make run`: a registry of three nodes that you can touch.

Makes certificates, starts three nodes that accept nobody without one, registers the gateway of the
roadmap at the first with its own JSON, asks the second for it, says what to try next, and stays
until Ctrl-C. Uses nothing but HTTP, so every step can be repeated with curl.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agniregistry.identity import DevCa, SpiffeId

START_SECONDS_MAX = 60
NODES = 3
LOOPBACK = ["localhost", "127.0.0.1", "::1"]
PEER_PORTS_ABOVE = 100
"""A node listens for others this far above its port for clients."""
POLL_SECONDS = 0.05
STOP_GRACE_SECONDS = 3
STAT_STARTED = 19
"""Which of the fields behind the name in /proc/self/stat says when the process began: the 22nd of
all."""

# Word for word what the roadmap sends.
GATEWAY = """{
    "region": "global",
    "gateway_ip": "12.34.56.78",
    "gateway_domain": "global.gateway.agnistack.online",
    "gateway_port": 4000,
    "capacity": {
        "cpu": 1,
        "bandwidth": 20,
        "memory": 4096,
        "storage": 40960
    }
}"""

NEXT = """\
The registry is up: {nodes}. Its data is in {data} and survives kill -9.

Kill any one node: what was registered is still found, and can be changed, at the other two.

  kill -9 {victim}                               (the one that was asked first)
  {curl} {other}/v1/gateways
  {bin}/python -m agniregistry_node run {settings}
                                              (it comes back and catches up)

Try, in another terminal:

  {bin}/agnictl {known} cluster status
  {bin}/agnictl {known} list gateways
  {bin}/agnictl {known} watch gateways    (leave it open, then change something)
  {curl} -X DELETE {url}/v1/gateways/global.gateway.agnistack.online
  {curl} {url}/metrics
  {curl} {url}/openapi.json        (the whole HTTP interface)

  {bin}/python - <<'END'
  from agniregistry import Client, Filter, Kind{import_tls}
  with Client("{address}"{with_tls}) as client:
      print(client.discover(Filter(kind=Kind.GATEWAY), region="global"))
  END

Ctrl-C stops it.
"""


def step(text: str) -> None:
    """Says what happens now."""
    print(f"\n\033[1m▸ {text}\033[0m" if sys.stdout.isatty() else f"\n> {text}", flush=True)


@dataclass
class Access:
    """How the nodes are reached: with the operator's certificate, or by anybody."""

    folder: Path | None

    @property
    def scheme(self) -> str:
        """Of an address."""
        return "https" if self.folder else "http"

    def file(self, name: str) -> str:
        """A file of the development CA, as one would type it."""
        return os.path.relpath(self.folder / name) if self.folder else ""

    def context(self) -> ssl.SSLContext | None:
        """For HTTPS; None for plain HTTP."""
        if self.folder is None:
            return None
        context = ssl.create_default_context(cafile=str(self.folder / "bundle.pem"))
        context.load_cert_chain(self.folder / "operator.pem", self.folder / "operator-key.pem")
        return context

    def call(self, url: str, body: str | None = None, timeout: float = 10) -> Any:
        """One HTTP request; answers the parsed JSON."""
        data = body.encode() if body is not None else None
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout, context=self.context()) as answer:
            return json.load(answer)


def seconds_running() -> float:
    """How long this process has been running, the interpreter's own start included, in seconds."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(fields[STAT_STARTED]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def make_certificates(folder: Path) -> Access:
    """A development CA in the folder, with new certificates of the nodes and of the operator."""
    known = folder / "bundle.pem"
    authority = DevCa.open(folder) if known.exists() else DevCa.init(folder)
    for number in range(1, NODES + 1):
        authority.issue(SpiffeId.node(authority.trust_domain, f"n{number}"), LOOPBACK)
    authority.issue(SpiffeId.operator(authority.trust_domain), [])
    return Access(folder)


@dataclass
class DemoNode:
    """One of the nodes."""

    settings: list[str]
    address: str
    log: Path
    process: subprocess.Popen[bytes]


def start_node(number: int, port: int, data: str, folder: Path, access: Access) -> DemoNode:
    """A node in a process of its own."""
    peers = [f"127.0.0.1:{port + PEER_PORTS_ABOVE + each}" for each in range(NODES)]
    address = f"127.0.0.1:{port + number}"
    settings = ["--preset", "dev", "--log-level", "info", "--listen", address]
    settings += ["--name", f"n{number + 1}", "--peer-listen", peers[number]]
    settings += ["--seeds", ",".join(peers), "--data-dir", str(Path(data) / f"node-{number + 1}")]
    if access.folder is not None:
        settings += ["--tls-dir", str(access.folder)]
    log = folder / f"node-{number + 1}.log"
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "agniregistry_node", "run", *settings]
        process = subprocess.Popen(command, stderr=sink)
    return DemoNode(settings, address, log, process)


def wait_ready(nodes: list[DemoNode], access: Access) -> None:
    """Waits until every node serves.

    Raises:
        SystemExit: With the log of the first that doesn't.
    """
    deadline = time.monotonic() + START_SECONDS_MAX
    for node in nodes:
        while not is_ready(node.address, access):
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{node.address} did not start; it said:\n{node.log.read_text()}")
            time.sleep(POLL_SECONDS)


def is_ready(address: str, access: Access) -> bool:
    """Whether it serves."""
    try:
        access.call(f"{access.scheme}://{address}/readyz", timeout=1)
    except (urllib.error.URLError, OSError, ValueError):
        return False
    return True


def show(nodes: list[DemoNode], data: str, access: Access) -> None:
    """The demonstration itself."""
    first, second = (f"{access.scheme}://{node.address}" for node in nodes[:2])
    step(f"the roadmap's gateway registers: POST {first}/v1/gateways")
    print(GATEWAY)
    print("answer:", json.dumps(access.call(f"{first}/v1/gateways", GATEWAY)))
    query = "/v1/discover?kind=gateway&region=global&min_memory=2048&explain=true"
    step(f"another node is asked who serves the region global: GET {second}{query}")
    found = access.call(second + query)
    print(json.dumps(found, indent=2))
    if not found["candidates"]:
        raise SystemExit(f"{second} does not find what was registered at {first}")
    step(f"{len(nodes)} nodes ready, gateway discovered: {seconds_running():.1f} s after the start")
    step("yours now")
    programs = os.path.relpath(Path(sys.executable).parent)
    bundle, cert, key = map(access.file, ("bundle.pem", "operator.pem", "operator-key.pem"))
    curl, known, import_tls, with_tls = "curl -s", f"-a {nodes[0].address}", "", ""
    if access.folder is not None:
        curl += f" --cacert {bundle} --cert {cert} --key {key}"
        known += f" --ca {bundle} --cert {cert} --key {key}"
        import_tls, with_tls = ", Tls", f', tls=Tls("{bundle}", "{cert}", "{key}")'
    text = NEXT.format(
        curl=curl,
        known=known,
        import_tls=import_tls,
        with_tls=with_tls,
        url=first,
        nodes=", ".join(f"{node.address} (process {node.process.pid})" for node in nodes),
        data=data,
        bin=programs,
        victim=nodes[0].process.pid,
        settings=" ".join(nodes[0].settings),
        address=nodes[0].address,
        other=second,
    )
    print(text, flush=True)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="start three nodes and show what they do")
    parser.add_argument("--port", type=int, default=7400)
    parser.add_argument("--data", default=".agni")
    parser.add_argument("--insecure-dev", action="store_true", help="without TLS, on loopback")
    arguments = parser.parse_args()
    # A supervisor's SIGTERM ends the demonstration the way Ctrl-C does; and Ctrl-C counts even
    # where a shell in the background told its children to ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="agni-run-") as folder:
        last = arguments.port + NODES - 1
        step(f"nodes start on 127.0.0.1:{arguments.port} to {last}, data in {arguments.data}")
        nodes: list[DemoNode] = []
        access = Access(None)
        if not arguments.insecure_dev:
            access = make_certificates(Path(arguments.data).absolute() / "ca")
        try:
            # One by one, so that those which run are known should one fail.
            nodes += (
                start_node(number, arguments.port, arguments.data, Path(folder), access)
                for number in range(NODES)
            )
            wait_ready(nodes, access)
            show(nodes, arguments.data, access)
            while any(node.process.poll() is None for node in nodes):
                time.sleep(1)
            return 0
        except KeyboardInterrupt:
            step("stopping")
            return stop(nodes)
        finally:
            for node in nodes:
                if node.process.poll() is None:
                    node.process.kill()


def stop(nodes: list[DemoNode]) -> int:
    """Waits for the nodes. A terminal's Ctrl-C has reached them already; a second signal would end
    them at once, so they are only asked where nobody else has."""
    time.sleep(STOP_GRACE_SECONDS)
    for node in nodes:
        if node.process.poll() is None:
            node.process.terminate()
    return max(node.process.wait(timeout=30) for node in nodes)


if __name__ == "__main__":
    raise SystemExit(main())
