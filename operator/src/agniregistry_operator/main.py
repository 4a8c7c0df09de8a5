"""`agni-operator`: waits for the lease, then looks after registries until it loses it.

Whoever loses the lease ends the whole process: a half-stopped operator would be a second one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf

from agniregistry_operator.ending import end
from agniregistry_operator.health import Health
from agniregistry_operator.kube import Connection, Kube, find_connection
from agniregistry_operator.lease import Elector
from agniregistry_operator.link import Link
from agniregistry_operator.metrics import Metrics
from agniregistry_operator.runner import Settings
from agniregistry_operator.wiring import Supervisor, kopf_settings, register, register_machines

log = logging.getLogger("agniregistry.operator")

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 3
DEFAULT_IMAGE = "ghcr.io/agnistack/agniregistry-node:0.1.0"


@dataclass(frozen=True)
class Options:
    """The command line."""

    namespaces: list[str]
    image: str
    scratch: Path
    lease_name: str
    lease_namespace: str
    listen: str
    machines: bool
    log_level: str


class JsonLines(logging.Formatter):
    """One JSON object a line, with the node's field names."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "ts": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def options_of(arguments: list[str]) -> Options:
    """Reads the command line; each option has an environment variable, too."""
    env = os.environ.get
    parser = argparse.ArgumentParser(prog="agni-operator", description=__doc__)
    parser.add_argument(
        "--namespaces",
        default=env("AGNI_OPERATOR_NAMESPACES", ""),
        help="namespaces to look after, with commas; empty for all",
    )
    parser.add_argument(
        "--image", default=env("AGNI_NODE_IMAGE", DEFAULT_IMAGE), help="image of nodes by default"
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(env("AGNI_OPERATOR_SCRATCH", "/run/agniregistry")),
        help="folder for the operator's own certificates; best in memory",
    )
    parser.add_argument("--lease-name", default=env("AGNI_OPERATOR_LEASE", "agniregistry-operator"))
    parser.add_argument("--lease-namespace", default=env("AGNI_OPERATOR_NAMESPACE", ""))
    parser.add_argument("--listen", default=env("AGNI_OPERATOR_LISTEN", "0.0.0.0:8080"))
    parser.add_argument(
        "--no-machines",
        action="store_true",
        default=env("AGNI_OPERATOR_MACHINES", "true").lower() == "false",
        help="don't look at the cluster's machines: no zones are known then",
    )
    parser.add_argument("--log-level", default=env("AGNI_OPERATOR_LOG_LEVEL", "info"))
    given = parser.parse_args(arguments)
    return Options(
        namespaces=[name.strip() for name in given.namespaces.split(",") if name.strip()],
        image=given.image,
        scratch=given.scratch,
        lease_name=given.lease_name,
        lease_namespace=given.lease_namespace,
        listen=given.listen,
        machines=not given.no_machines,
        log_level=given.log_level,
    )


def set_up_logs(level: str) -> None:
    """Lines of JSON on standard error; Kopf only where it warns."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def run(
    options: Options,
    connection: Connection,
    stop: asyncio.Event,
    link: Callable[[int], Link] = Link,
) -> int:
    """Runs the operator until it is asked to stop; answers the exit code."""
    # The lease has connections of its own: it must not wait behind other calls.
    kube, kube_of_lease, metrics = Kube(connection), Kube(connection), Metrics()
    identity = f"{socket.gethostname()}_{os.getpid()}_{time.time_ns() % 1_000_000}"
    space = options.lease_namespace or connection.namespace
    elector = Elector(kube_of_lease, space, options.lease_name, identity)
    supervisors: list[Supervisor] = []
    health = Health(metrics, lambda: [fault for each in supervisors for fault in each.faults()])
    host, _, port = options.listen.rpartition(":")
    await health.start(host.strip("[]"), int(port))
    try:
        waiting = asyncio.create_task(elector.acquire())
        if not await _first(waiting, stop):
            return EXIT_OK
        metrics.leads.set(1)
        settings = Settings(
            image=options.image,
            scratch=options.scratch,
            epoch=elector.epoch,
            pod=socket.gethostname(),
            link=link,
            leads=elector.holds,
        )
        supervisor = Supervisor(kube, metrics, settings, looks_at_machines=options.machines)
        supervisors.append(supervisor)
        return await _lead(options, connection, elector, supervisor, stop)
    finally:
        metrics.leads.set(0)
        await health.stop()
        await kube.aclose()
        await kube_of_lease.aclose()


async def _first(task: asyncio.Task[None], stop: asyncio.Event) -> bool:
    """Waits for a task or for the stop; says whether it was the task."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    done = task.done()
    await end([task, stopping])
    if done:
        # One that failed has not done what was waited for.
        task.result()
    return done


async def _lead(
    options: Options,
    connection: Connection,
    elector: Elector,
    supervisor: Supervisor,
    stop: asyncio.Event,
) -> int:
    """Looks after registries while the lease is held."""
    registry = register(supervisor, connection)
    tasks: set[asyncio.Task[Any]] = set()
    if options.machines:
        register_machines(registry, supervisor)
        tasks.add(asyncio.create_task(supervisor.list_machines()))
    tasks.add(asyncio.create_task(supervisor.list_registries(options.namespaces)))
    ending = asyncio.Event()
    others = asyncio.all_tasks()
    watchers = await kopf.spawn_tasks(
        registry=registry,
        settings=kopf_settings(options.namespaces),
        standalone=True,
        clusterwide=not options.namespaces,
        namespaces=options.namespaces,
        stop_flag=ending,
    )
    # Kopf takes the signals for itself: it would stop the watches, and the lease would be kept.
    stop_on_signals(stop)
    watching = asyncio.create_task(kopf.run_tasks(watchers, ignored=others))
    keeping = asyncio.create_task(elector.keep())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({watching, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
    lost = keeping.done()
    if lost:
        # Others may act from now on: nothing is finished, nothing is waited for.
        log.error("the lease is lost; the process ends")
        logging.shutdown()
        os._exit(EXIT_FAILED)
    failed = watching.done() and not stop.is_set()
    log.info("the watches have ended" if failed else "asked to stop: the lease is given back")
    await supervisor.stop()
    await end([keeping])
    await elector.release()
    ending.set()
    tasks |= {watching, keeping, stopping}
    for task in tasks - {watching}:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    log.info("stopped")
    return EXIT_FAILED if failed else EXIT_OK


def stop_on_signals(stop: asyncio.Event) -> None:
    """Has the signals by which a process is asked to end ask for the stop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def main(arguments: list[str] | None = None, link: Callable[[int], Link] = Link) -> int:
    """The command `agni-operator`; how it reaches registries is a test's business."""
    options = options_of(sys.argv[1:] if arguments is None else arguments)
    set_up_logs(options.log_level)
    try:
        connection = find_connection(options.scratch)
    except ValueError as error:
        log.error("%s", error)
        return EXIT_USAGE

    async def until_signal() -> int:
        stop = asyncio.Event()
        stop_on_signals(stop)
        return await run(options, connection, stop, link)

    return asyncio.run(until_signal())
