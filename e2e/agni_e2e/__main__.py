"""The platform for people and for make: build it, keep a cluster up, look into it, end it.

python -m agni_e2e build quick|full        compile what the tier needs (and isn't there)
python -m agni_e2e up quick|full [NODES]   a cluster that stays until `down`; says how to find it
python -m agni_e2e down                    end it
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from agni_e2e import Cluster, PlatformError, builder, places
from agni_e2e.cluster import end_on_signals
from agni_e2e.processes import start_time
from agni_e2e.waiting import until

UP_TIMEOUT_S = 300.0
DOWN_TIMEOUT_S = 60.0
DEFAULT_NODES = 3


def kept() -> Path:
    """What is known of the cluster that stays: its process, its kubeconfig."""
    return places.cache() / "up"


def holder() -> int | None:
    """The process that holds the cluster, if it lives."""
    try:
        pid, began = (kept() / "pid").read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == began else None


def hold(tier: str, nodes: int) -> None:
    """Has a cluster until this process is told to end."""
    end_on_signals()
    kept().mkdir(parents=True, exist_ok=True)
    try:
        with Cluster(tier, nodes) as cluster:
            for archive in (places.NODE_IMAGE, places.OPERATOR_IMAGE):
                if tier == "full" and archive.exists():
                    cluster.load_image(archive)
            (kept() / "kubeconfig").write_bytes(cluster.kubeconfig.read_bytes())
            (kept() / "kubeconfig").chmod(0o600)
            (kept() / "ready").touch()
            threading.Event().wait()
    finally:
        for name in ("ready", "kubeconfig", "pid"):
            (kept() / name).unlink(missing_ok=True)


def up(tier: str, nodes: int) -> None:
    """Starts the holder in the background, and waits for its cluster."""
    if holder() is not None:
        raise PlatformError("a cluster is up already: `down` ends it")
    built = builder.ensure(tier)
    kept().mkdir(parents=True, exist_ok=True)
    (kept() / "ready").unlink(missing_ok=True)
    log = kept() / "holder.log"
    command = (sys.executable, "-m", "agni_e2e", "hold", tier, str(nodes))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    (kept() / "pid").write_text(f"{process.pid} {start_time(process.pid)}")

    def is_up() -> bool:
        if process.poll() is not None:
            raise PlatformError(f"the cluster didn't start:\n{log.read_text()[-3000:]}")
        return (kept() / "ready").exists()

    until("the cluster is up", is_up, timeout_s=UP_TIMEOUT_S)
    folders = {str(Path(built[name]).parent) for name in ("kubectl", "helm")}
    print(f"export KUBECONFIG={kept() / 'kubeconfig'}")
    print(f"export PATH={':'.join(sorted(folders))}:$PATH")


def down() -> None:
    """Ends the cluster that stays."""
    pid = holder()
    if pid is None:
        print("no cluster is up")
        return
    os.kill(pid, signal.SIGTERM)
    until("the cluster has ended", lambda: holder() is None, timeout_s=DOWN_TIMEOUT_S)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main_parser = argparse.ArgumentParser(
        prog="agni_e2e", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    tiers = ("quick", "full")
    commands.add_parser("build").add_argument("tier", choices=tiers)
    for name in ("up", "hold"):
        command = commands.add_parser(name)
        command.add_argument("tier", choices=tiers)
        command.add_argument("nodes", type=int, nargs="?", default=DEFAULT_NODES)
    commands.add_parser("down")
    return main_parser


def main() -> None:
    """Carries out one command."""
    arguments = parser().parse_args()
    if arguments.command == "build":
        builder.ensure(arguments.tier)
    elif arguments.command == "up":
        up(arguments.tier, arguments.nodes)
    elif arguments.command == "hold":
        hold(arguments.tier, arguments.nodes)
    else:
        down()


if __name__ == "__main__":
    try:
        main()
    except PlatformError as failure:
        raise SystemExit(f"agni_e2e: {failure}") from None
