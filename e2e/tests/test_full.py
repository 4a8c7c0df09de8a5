"""The full tier: pods really run, and machines really fail."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from workloads import applied, node_registry, node_service

from agni_e2e import Cluster, places
from agni_e2e.api import Object
from agni_e2e.machine import RealMachine
from agni_e2e.waiting import until

pytestmark = pytest.mark.full

NAMESPACE = "images"
NODE_IMAGE = places.IMAGES / "node.tar"
IMAGE_NAME = "agnistack.online/agniregistry/node:0.1.0"
REPLICAS = 3
LOST_S = 90.0


def pod(cluster: Cluster, name: str) -> Object:
    return cluster.get("pod", name, "-n", NAMESPACE)


def wait_ready(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.kubectl("-n", NAMESPACE, "wait", "--for=create", f"pod/{name}", "--timeout=60s")
    targets = [f"pod/{name}" for name in names]
    ready = ("wait", "--for=condition=Ready", *targets, "--timeout=120s")
    cluster.kubectl("-n", NAMESPACE, *ready)


def answer(cluster: Cluster, host: str, port: int, path: str) -> tuple[int, str]:
    """What a pod or Service says to a caller outside of the sandbox."""
    connection = http.client.HTTPConnection(*cluster.reach(host, port), timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def nodes(full: Cluster) -> Iterator[Cluster]:
    """Three nodes of AgniRegistry from the image, each alone, in three zones."""
    assert NODE_IMAGE.exists(), "run `make images` first"
    full.load_image(NODE_IMAGE)
    restricted = "pod-security.kubernetes.io/enforce=restricted"
    full.kubectl("create", "namespace", NAMESPACE)
    full.kubectl("label", "namespace", NAMESPACE, restricted)
    objects = applied(node_service("node"), node_registry("node", REPLICAS, IMAGE_NAME))
    full.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=objects)
    wait_ready(full, *(f"node-{number}" for number in range(REPLICAS)))
    return full


def test_node_image_runs_restricted_in_every_zone(nodes: Cluster) -> None:
    pods = [pod(nodes, f"node-{number}") for number in range(REPLICAS)]
    zones = {nodes.machines[each["spec"]["nodeName"]].zone for each in pods}
    assert zones == {"zone-1", "zone-2", "zone-3"}
    status, text = answer(nodes, pods[0]["status"]["podIP"], 7400, "/readyz")
    assert (status, bool(text)) == (200, True)


def test_service_leads_to_a_node(nodes: Cluster) -> None:
    address = nodes.get("service", "node-client", "-n", NAMESPACE)["spec"]["clusterIP"]
    status, _ = answer(nodes, address, 7400, "/livez")
    assert status == 200


def test_names_are_resolved_in_pods(nodes: Cluster) -> None:
    script = "import socket; print(socket.gethostbyname('node-1.node'))"
    python = ("/usr/bin/python3.11", "-c", script)
    said = nodes.kubectl("-n", NAMESPACE, "exec", "node-0", "--", *python)
    assert said.strip() == pod(nodes, "node-1")["status"]["podIP"]


def test_image_has_no_shell_and_cannot_be_written(nodes: Cluster) -> None:
    script = (
        "import os, pathlib, shutil\n"
        "print(os.getuid(), shutil.which('sh'), shutil.which('apt-get'))\n"
        "try: pathlib.Path('/opt/agniregistry/x').touch()\n"
        "except OSError as error: print(error.strerror)"
    )
    python = ("/usr/bin/python3.11", "-c", script)
    said = nodes.kubectl("-n", NAMESPACE, "exec", "node-0", "--", *python)
    assert said.splitlines() == ["65532 None None", "Read-only file system"]


def test_pod_that_is_deleted_comes_back_on_its_volume(nodes: Cluster) -> None:
    before = files(nodes, "node-1")
    uid = pod(nodes, "node-1")["metadata"]["uid"]
    nodes.kubectl("-n", NAMESPACE, "delete", "pod", "node-1", "--timeout=60s")
    wait_ready(nodes, "node-1")
    assert pod(nodes, "node-1")["metadata"]["uid"] != uid
    assert before <= files(nodes, "node-1")


def files(cluster: Cluster, name: str) -> set[Path]:
    """What a pod has written, seen on its machine's disk."""
    claim = cluster.get("pvc", f"data-{name}", "-n", NAMESPACE)
    volume = cluster.get("pv", claim["spec"]["volumeName"])
    root = Path(volume["spec"]["local"]["path"])
    found = {path for path in root.rglob("*") if path.name == "identity"}
    return found or {path for path in root.iterdir() if path.is_dir()}


def test_machine_loses_power_and_comes_back(nodes: Cluster) -> None:
    before = pod(nodes, "node-2")
    machine = nodes.machines[before["spec"]["nodeName"]]
    machine.power_off()
    lost = ("wait", "--for=condition=Ready=Unknown", f"node/{machine.name}", "--timeout=90s")
    nodes.kubectl(*lost)
    unready = ("wait", "--for=condition=Ready=False", "pod/node-2", "--timeout=30s")
    nodes.kubectl("-n", NAMESPACE, *unready)
    machine.power_on()
    nodes.kubectl("wait", "--for=condition=Ready", f"node/{machine.name}", "--timeout=90s")
    wait_ready(nodes, "node-2")
    assert answer_of_pod(nodes, "node-2") == 200


def test_machine_is_cut_off_while_its_processes_live(nodes: Cluster) -> None:
    before = pod(nodes, "node-0")
    machine = nodes.machines[before["spec"]["nodeName"]]
    machine.cut()
    lost = ("wait", "--for=condition=Ready=Unknown", f"node/{machine.name}", "--timeout=90s")
    nodes.kubectl(*lost)
    assert isinstance(machine, RealMachine)
    assert any("agni-node" in command for command in machine.commands())
    machine.heal()
    nodes.kubectl("wait", "--for=condition=Ready", f"node/{machine.name}", "--timeout=90s")
    wait_ready(nodes, "node-0")
    until("it answers again", lambda: answer_of_pod(nodes, "node-0") == 200, timeout_s=LOST_S)


def answer_of_pod(cluster: Cluster, name: str) -> int:
    try:
        return answer(cluster, pod(cluster, name)["status"]["podIP"], 7400, "/readyz")[0]
    except (OSError, http.client.HTTPException):
        return 0
