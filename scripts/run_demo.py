"""`make run`: a registry that you can touch.

Starts a node, registers the gateway of the roadmap with its own JSON, asks discovery for it, says
what to try next, and stays until Ctrl-C. Uses nothing but HTTP, so every step can be repeated
with curl.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

START_SECONDS_MAX = 60
POLL_SECONDS = 0.05

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
The registry is up on {address}; its data is in {data} and survives kill -9.

Try, in another terminal:

  {bin}/agnictl -a {address} list gateways
  {bin}/agnictl -a {address} watch gateways    (leave it open, then change something)
  curl -s http://{address}/v1/gateways
  curl -s -X DELETE http://{address}/v1/gateways/global.gateway.agnistack.online
  curl -s http://{address}/metrics
  curl -s http://{address}/openapi.json        (the whole HTTP interface)

  {bin}/python - <<'END'
  from agniregistry import Client, Filter, Kind
  with Client("{address}") as client:
      print(client.discover(Filter(kind=Kind.GATEWAY), region="global"))
  END

Ctrl-C stops it.
"""


def step(text: str) -> None:
    """Says what happens now."""
    print(f"\n\033[1m▸ {text}\033[0m" if sys.stdout.isatty() else f"\n> {text}", flush=True)


def call(url: str, body: str | None = None) -> Any:
    """One HTTP request; answers the parsed JSON."""
    data = body.encode() if body is not None else None
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def start_node(listen: str, data: str, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A node in a process of its own, and where it listens, once it is ready."""
    command = [sys.executable, "-m", "agniregistry_node", "run", "--preset", "dev"]
    command += ["--log-level", "info", "--listen", listen, "--data-dir", data]
    with log.open("wb") as sink:
        node = subprocess.Popen(command, stderr=sink)
    deadline = time.monotonic() + START_SECONDS_MAX
    while node.poll() is None and time.monotonic() < deadline:
        address = address_in(log)
        if address and is_ready(address):
            return node, address
        time.sleep(POLL_SECONDS)
    node.terminate()
    raise SystemExit(f"the node did not start; it said:\n{log.read_text()}")


def address_in(log: Path) -> str | None:
    """Where the node says that it listens."""
    for line in log.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("msg") == "node started":
            return str(entry["address"])
    return None


def is_ready(address: str) -> bool:
    """Whether it serves."""
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def show(address: str, data: str) -> None:
    """The demonstration itself."""
    base = f"http://{address}"
    step(f"the roadmap's gateway registers: POST {base}/v1/gateways")
    print(GATEWAY)
    print("answer:", json.dumps(call(f"{base}/v1/gateways", GATEWAY)))
    query = "/v1/discover?kind=gateway&region=global&min_memory=2048&explain=true"
    step(f"who serves the region global with 2 GiB of memory? GET {query}")
    print(json.dumps(call(base + query), indent=2))
    step("yours now")
    programs = os.path.relpath(Path(sys.executable).parent)
    print(NEXT.format(address=address, data=data, bin=programs), flush=True)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="start a node and show what it does")
    parser.add_argument("--port", type=int, default=7400)
    parser.add_argument("--data", default=".agni")
    arguments = parser.parse_args()
    # A supervisor's SIGTERM ends the demonstration the way Ctrl-C does; and Ctrl-C counts even
    # where a shell in the background told its children to ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="agni-run-") as folder:
        step(f"a node starts on 127.0.0.1:{arguments.port}, data in {arguments.data}")
        log = Path(folder) / "node.log"
        node, address = start_node(f"127.0.0.1:{arguments.port}", arguments.data, log)
        try:
            show(address, arguments.data)
            return node.wait()
        except KeyboardInterrupt:
            step("stopping")
            return stop(node)
        finally:
            if node.poll() is None:
                node.kill()


def stop(node: subprocess.Popen[bytes]) -> int:
    """Waits for the node. A terminal's Ctrl-C has reached it already; a second signal would end
    it at once, so it is only asked where nobody else has."""
    try:
        return node.wait(timeout=1)
    except subprocess.TimeoutExpired:
        node.terminate()
    return node.wait(timeout=30)


if __name__ == "__main__":
    raise SystemExit(main())
