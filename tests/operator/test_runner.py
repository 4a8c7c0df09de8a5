"""One registry's task, and who keeps it: errors end a look and nothing else, names come again."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_crd import resource
from test_plan import wanted

from agniregistry_operator import wiring
from agniregistry_operator.executor import Executor
from agniregistry_operator.identity import Identity
from agniregistry_operator.kube import ApiError
from agniregistry_operator.metrics import Metrics
from agniregistry_operator.model import actions as a
from agniregistry_operator.model.status import status_of
from agniregistry_operator.observer import Memory
from agniregistry_operator.runner import Runner, Settings
from agniregistry_operator.wiring import Supervisor


class Server:
    """An API server that knows registries, and nothing else."""

    def __init__(self) -> None:
        self.registries: dict[str, dict[str, Any]] = {}
        self.fails = False
        self.writes = 0
        self.events: list[str] = []

    def put(self, name: str, uid: str, **spec: Any) -> None:
        made = copy.deepcopy(resource(**spec))
        meta = {"name": name, "uid": uid, "resourceVersion": "1"}
        self.registries[name] = made | {"metadata": made["metadata"] | meta}

    async def call(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        if self.fails:
            raise ApiError(500, "InternalError", "etcd is gone")
        if path.endswith("/agniregistries"):
            return {"items": list(self.registries.values())}
        if path.endswith("/events"):
            self.events.append(body["reason"])
        return {}

    async def get(self, version: str, kind: str, space: str, name: str) -> dict[str, Any]:
        if self.fails:
            raise ApiError(500, "InternalError", "etcd is gone")
        if kind != "AgniRegistry" or name not in self.registries:
            raise ApiError(404, "NotFound", "no")
        return copy.deepcopy(self.registries[name])

    async def apply(self, manifest: Any) -> dict[str, Any]:
        return {}

    async def write_status(self, found: Any, status: Any) -> None:
        self.writes += 1
        self.registries[found["metadata"]["name"]]["status"] = status


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def supervisor(server: Server, tmp_path: Path) -> Supervisor:
    return Supervisor(server, Metrics(), Settings("image", tmp_path, 1))  # type: ignore[arg-type]


async def test_a_look_that_fails_is_one_that_has_ended(tmp_path: Path) -> None:
    server = Server()
    server.put("web", "u1")
    made = supervisor(server, tmp_path)
    server.fails = True
    made.heard_of("shop", "web", 1, gone=False)
    runner = made._runners["shop", "web"]
    runner.finished_at -= wiring.STALLED_S + 1
    assert made.faults()
    await until(lambda: not made.faults())
    await made.stop()


@pytest.mark.parametrize(
    "spec", [{"repair": {"after": "soon"}}, {"storage": {"size": "much"}}, {"nodes": "three"}]
)
async def test_a_spec_that_can_not_be_understood_is_said(tmp_path: Path, spec: Any) -> None:
    server = Server()
    server.put("web", "u1", **spec)
    kept = {"clusterId": "c", "readyNodes": 3, "trust": {"generation": 1, "step": "Settled"}}
    server.registries["web"]["status"] = dict(kept)
    made = supervisor(server, tmp_path)
    made.heard_of("shop", "web", 1, gone=False)
    await until(lambda: server.writes > 0 and bool(server.events))
    status = server.registries["web"]["status"]
    assert status | kept == status, "what must survive does"
    assert status["observedGeneration"] == 4
    stalled, ready = (status_of(status).condition(kind) for kind in ("Stalled", "Ready"))
    assert stalled is not None
    assert ready is not None
    assert (stalled.holds, stalled.reason, ready.holds) == (True, "InvalidSpec", False)
    made.wake("shop", "web")
    await asyncio.sleep(0.5)
    assert server.writes == 1, "the same words are written once"
    assert not made.faults()
    await made.stop()


async def test_another_registry_of_the_name_gets_a_runner_of_its_own(tmp_path: Path) -> None:
    server = Server()
    server.put("web", "u1", repair={"after": "soon"})
    made = supervisor(server, tmp_path)
    made.heard_of("shop", "web", 1, gone=False)
    first = made._runners["shop", "web"]
    await until(lambda: first.seen_generation > 0 and server.writes > 0)
    server.put("web", "u2", repair={"after": "soon"})
    made.wake("shop", "web")
    await until(lambda: made._runners.get(("shop", "web")) not in (None, first))
    await made.stop()


async def test_an_event_that_comes_while_a_runner_ends_is_not_lost(tmp_path: Path) -> None:
    server = Server()
    made = supervisor(server, tmp_path)
    runner = Runner(
        "shop", "web", kube=server, machines=dict, metrics=Metrics(),  # type: ignore[arg-type]
        settings=Settings("image", tmp_path, 1), turn=asyncio.Semaphore(1),
    )  # fmt: skip
    key = ("shop", "web")
    made._runners[key] = runner
    task = asyncio.create_task(made._supervised(key, runner))
    server.put("web", "u1", repair={"after": "soon"})

    async def ends() -> None:
        made.heard_of("shop", "web", 1, gone=False)

    runner.run = ends  # type: ignore[method-assign]
    await task
    assert made._runners[key] is not runner
    await made.stop()


async def test_registries_are_listed_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(wiring, "LIST_AGAIN_S", 0.01)
    server = Server()
    made = supervisor(server, tmp_path)
    listing = asyncio.create_task(made.list_registries([]))
    await asyncio.sleep(0.02)
    server.put("web", "u1", repair={"after": "soon"})
    await until(lambda: ("shop", "web") in made._runners)
    listing.cancel()
    await made.stop()


async def test_a_refusal_keeps_the_time_at_which_it_began(tmp_path: Path) -> None:
    class Refuses:
        async def delete(self, *_: Any, **__: Any) -> None:
            raise ApiError(409, "Conflict", "it has changed")

    executor = Executor(Refuses(), lambda *_: None)  # type: ignore[arg-type]
    memory = Memory(Identity(tmp_path), None)  # type: ignore[arg-type]
    action = a.DeleteChild("Service", "web")
    await executor.run((action,), wanted(), memory)
    first = memory.refusals["DeleteChild Service/web"]
    await executor.run((action,), wanted(), memory)
    assert memory.refusals["DeleteChild Service/web"].since == first.since
    await executor.run((), wanted(), memory)
    assert not memory.refusals
