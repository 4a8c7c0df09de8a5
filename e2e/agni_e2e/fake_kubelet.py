"""Machines without machines: nodes and pods whose status is played through the real API.

Scheduling, StatefulSets, claims, budgets, eviction and garbage collection are Kubernetes' own;
only what a kubelet reports is invented here, after rules that a test can change while it runs.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from agni_e2e.api import Api, Object
from agni_e2e.errors import ApiError, PlatformError

HEARTBEAT_S = 4.0
CLOSE_TIMEOUT_S, CLOSE_POLL_S = 10.0, 0.1
IDLE_S = 0.5
"""The longest that a changed rule or machine waits to be seen."""
RESOURCES = {"cpu": "32", "memory": "128Gi", "pods": "250"}
POD_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")


@dataclass(frozen=True)
class Behaviour:
    """How a fake kubelet treats one pod."""

    ready_after_s: float = 0.0
    """From being scheduled to being Ready."""
    gone_after_s: float = 0.0
    """From being deleted to being gone (a container that takes its time to end)."""
    waiting_reason: str = ""
    """Not empty: the container doesn't run, for this reason (`ImagePullBackOff`)."""
    address: str = ""
    """The pod's address; empty means one that nobody answers at."""


Rule = Callable[[Object], Behaviour]


def at_once(pod: Object) -> Behaviour:
    """Every pod is Ready at once, and gone at once."""
    del pod
    return Behaviour()


@dataclass
class FakeMachine:
    """A node of the API without a machine behind it."""

    name: str
    zone: str
    is_on: bool = True
    pods: dict[str, Object] = field(default_factory=dict)
    """By uid; the newest that the API server told."""


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def path_of(pod: Object) -> str:
    """Where a pod is in the API."""
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


def node_object(machine: FakeMachine) -> Object:
    """The Node that a kubelet would register."""
    labels = {
        "kubernetes.io/hostname": machine.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": machine.zone,
    }
    return {"metadata": {"name": machine.name, "labels": labels}}


def node_status(machine: FakeMachine) -> Object:
    """What a kubelet says of its machine every few seconds."""
    time_now = now()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "a fake kubelet is well",
        "lastHeartbeatTime": time_now,
        "lastTransitionTime": time_now,
    }
    addresses = [{"type": "Hostname", "address": machine.name}]
    return {
        "status": {
            "capacity": RESOURCES,
            "allocatable": RESOURCES,
            "conditions": [ready],
            "addresses": addresses,
        }
    }


def running_status(pod: Object, address: str) -> Object:
    """The status of a pod that is Ready."""
    time_now = now()
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": time_now} for kind in POD_CONDITIONS
    ]
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "containerID": f"fake://{pod['metadata']['uid']}",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": time_now}},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": time_now,
            "conditions": [scheduled(pod), *conditions],
            "containerStatuses": containers,
        }
    }


def waiting_status(pod: Object, reason: str) -> Object:
    """The status of a pod whose containers wait for something that doesn't come."""
    message = f"a fake kubelet was told to say {reason}"
    conditions = [
        {"type": kind, "status": "False", "reason": "ContainersNotReady", "message": message}
        for kind in ("ContainersReady", "Ready")
    ]
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "started": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": message}},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "status": {
            "phase": "Pending",
            "startTime": now(),
            "conditions": [scheduled(pod), *conditions],
            "containerStatuses": containers,
        }
    }


def scheduled(pod: Object) -> Object:
    """The scheduler's condition, which a merge patch of the list must not lose."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled":
            return dict(condition)
    return {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}


class FakeKubelets:
    """All fake machines of a cluster, played by three threads.

    Args:
        api: The API server, as an administrator.
        zones: The zone of each machine, by its name.
    """

    def __init__(self, api: Api, zones: Mapping[str, str]) -> None:
        self.machines = {name: FakeMachine(name, zone) for name, zone in zones.items()}
        self.rule: Rule = at_once
        """Replace it to change how pods are treated from now on; `retry` applies it to old ones."""
        self.errors: list[str] = []
        """What went wrong in a thread; a test that is puzzled looks here."""
        self._api = api
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._closed = threading.Event()
        self._addresses: dict[str, str] = {}
        self._running: set[str] = set()
        self._leaving: set[str] = set()
        self._threads = [
            threading.Thread(target=self._guard, args=(body,), name=f"fake-{name}", daemon=True)
            for name, body in (
                ("heartbeats", self._beat),
                ("pods", self._watch_once),
                ("actions", self._act_once),
            )
        ]

    def start(self) -> None:
        """Registers the machines and plays them."""
        for machine in self.machines.values():
            self._api.create("/api/v1/nodes", node_object(machine))
            self._api.patch(f"/api/v1/nodes/{machine.name}/status", node_status(machine))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads, and with them the use of the API client."""
        self._closed.set()
        with self._wake:
            self._wake.notify_all()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while (alive := [t for t in self._threads if t.is_alive()]) and time.monotonic() < deadline:
            # Again and again: a thread may be about to open a connection.
            self._api.interrupt()
            alive[0].join(CLOSE_POLL_S)
        # Closing what a thread still reads would wait for that thread.
        if not alive:
            self._api.close()

    def power_off(self, name: str) -> None:
        """The machine falls silent: NotReady after the grace, and its pods stay as they are."""
        self.machines[name].is_on = False

    def power_on(self, name: str) -> None:
        """The machine is back, and treats its pods again."""
        machine = self.machines[name]
        machine.is_on = True
        self._api.patch(f"/api/v1/nodes/{name}/status", node_status(machine))
        for pod in list(machine.pods.values()):
            self._consider(pod)

    def retry(self) -> None:
        """Treats all pods anew, after the rule of now."""
        for machine in self.machines.values():
            for pod in list(machine.pods.values()):
                self._consider(pod)

    def _guard(self, body: Callable[[], None]) -> None:
        """Repeats a thread's work; a fault is noted, and the thread goes on."""
        while not self._closed.is_set():
            try:
                body()
            except PlatformError as error:
                if not self._closed.is_set():
                    self.errors.append(str(error))
                    self._closed.wait(IDLE_S)

    def _beat(self) -> None:
        for machine in self.machines.values():
            if machine.is_on and not self._closed.is_set():
                self._api.patch(f"/api/v1/nodes/{machine.name}/status", node_status(machine))
        self._closed.wait(HEARTBEAT_S)

    def _watch_once(self) -> None:
        listed = self._api.get("/api/v1/pods")
        present = {pod["metadata"]["uid"] for pod in listed["items"]}
        for machine in self.machines.values():
            for uid in set(machine.pods) - present:
                self._forget(uid)
        for pod in listed["items"]:
            self._consider(pod)
        for event in self._api.watch("/api/v1/pods", listed["metadata"]["resourceVersion"]):
            if event["type"] == "DELETED":
                self._forget(event["object"]["metadata"]["uid"])
            else:
                self._consider(event["object"])

    def _forget(self, uid: str) -> None:
        for machine in self.machines.values():
            machine.pods.pop(uid, None)
        self._running.discard(uid)
        self._leaving.discard(uid)

    def _consider(self, pod: Object) -> None:
        """Plans what a kubelet would do with a pod that it has just seen."""
        machine = self.machines.get(pod["spec"].get("nodeName", ""))
        if machine is None:
            return
        uid = str(pod["metadata"]["uid"])
        machine.pods[uid] = pod
        if not machine.is_on:
            return
        behaviour = self.rule(pod)
        if "deletionTimestamp" in pod["metadata"]:
            if uid not in self._leaving:
                self._leaving.add(uid)
                self._later(behaviour.gone_after_s, lambda: self._remove(machine, uid))
        elif uid not in self._running and not is_as_wanted(pod, behaviour):
            self._running.add(uid)
            is_new = pod.get("status", {}).get("phase", "Pending") == "Pending"
            is_slow = is_new and not behaviour.waiting_reason
            delay = behaviour.ready_after_s if is_slow else 0.0
            self._later(delay, lambda: self._run(machine, uid))

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        with self._wake:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._order), action))
            self._wake.notify_all()

    def _act_once(self) -> None:
        with self._wake:
            delay_s = self._due[0][0] - time.monotonic() if self._due else IDLE_S
            if delay_s > 0:
                self._wake.wait(min(delay_s, IDLE_S))
                return
            _, _, action = heapq.heappop(self._due)
        action()

    def _run(self, machine: FakeMachine, uid: str) -> None:
        """Says that a pod runs, or why it doesn't."""
        pod = machine.pods.get(uid)
        self._running.discard(uid)
        if pod is None or not machine.is_on or uid in self._leaving:
            return
        behaviour = self.rule(pod)
        if behaviour.waiting_reason:
            status = waiting_status(pod, behaviour.waiting_reason)
        else:
            status = running_status(pod, behaviour.address or self._address(uid))
        self._unless_gone(lambda: self._api.patch(f"{path_of(pod)}/status", status))

    def _remove(self, machine: FakeMachine, uid: str) -> None:
        """Says that a deleted pod's containers have ended, which removes it."""
        pod = machine.pods.get(uid)
        self._leaving.discard(uid)
        if pod is None or not machine.is_on:
            return
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": uid},
        }
        try:
            self._unless_gone(lambda: self._api.delete(path_of(pod), options))
        finally:
            # Somebody else may have changed it in that moment. It is forgotten once it is gone.
            if uid in machine.pods:
                self._leaving.add(uid)
                self._later(IDLE_S, lambda: self._remove(machine, uid))

    def _unless_gone(self, action: Callable[[], object]) -> None:
        """Somebody else may have removed or replaced the pod meanwhile."""
        try:
            action()
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise

    def _address(self, uid: str) -> str:
        """An address of a network that nobody has."""
        number = len(self._addresses)
        return self._addresses.setdefault(uid, f"10.200.{number // 250}.{number % 250 + 1}")


def is_as_wanted(pod: Object, behaviour: Behaviour) -> bool:
    """Whether a pod's status says already what the behaviour wants.

    It doesn't for a pod that ran on a machine which was silent: Kubernetes has called it not Ready.
    """
    status = pod.get("status", {})
    if behaviour.waiting_reason:
        return waiting_reason_of(status) == behaviour.waiting_reason
    ready = [item["status"] for item in status.get("conditions", []) if item["type"] == "Ready"]
    return status.get("phase") == "Running" and ready == ["True"]


def waiting_reason_of(status: Object) -> str:
    """Why a pod's first container waits, as its status says."""
    for container in status.get("containerStatuses", []):
        return str(container.get("state", {}).get("waiting", {}).get("reason", ""))
    return ""
