"""The full tier: pods really run, and machines really fail."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from workloads import applied, node_registry, node_services

from agni_e2e import Cluster, PlatformError, places
from agni_e2e.api import Object
from agni_e2e.full import FullPlatform
from agni_e2e.machine import BRIDGE, RealMachine
from agni_e2e.machine_files import BRIDGE_HARDWARE_ADDRESS
from agni_e2e.platform import Machine
from agni_e2e.waiting import until
from agni_images.names import image_name

pytestmark = pytest.mark.full

NAMESPACE = "images"
IMAGE_NAME = image_name("agniregistry-node")
REPLICAS = 3
MARK = "/var/lib/agniregistry/mark"
LOST_S = 90.0


def pod(cluster: Cluster, name: str) -> Object:
    return cluster.get("pod", name, "-n", NAMESPACE)


def zone_of(cluster: Cluster, node: str) -> str:
    labels = cluster.get("node", node)["metadata"]["labels"]
    return str(labels["topology.kubernetes.io/zone"])


def wait_ready(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.kubectl("-n", NAMESPACE, "wait", "--for=create", f"pod/{name}", "--timeout=60s")
    targets = [f"pod/{name}" for name in names]
    ready = ("wait", "--for=condition=Ready", *targets, "--timeout=120s")
    cluster.kubectl("-n", NAMESPACE, *ready)


def python_in(cluster: Cluster, name: str, script: str) -> str:
    """Runs a script in a pod: the image has an interpreter, and nothing else to run."""
    command = ("exec", name, "--", "/usr/bin/python3.11", "-c", script)
    return cluster.kubectl("-n", NAMESPACE, *command)


def answer(cluster: Cluster, host: str) -> tuple[int, str]:
    """What a node says of its readiness, by its own or the Service's address, to another pod."""
    script = (
        "from urllib.request import urlopen\n"
        f"said = urlopen('http://{host}:7400/readyz', timeout=5)\n"
        "print(said.status, said.read().decode())"
    )
    status, _, text = python_in(cluster, "node-1", script).partition(" ")
    return int(status), text.strip()


def write_mark(cluster: Cluster, name: str) -> str:
    """Leaves a file on a pod's volume; answers what is in it."""
    mark = pod(cluster, name)["metadata"]["uid"]
    python_in(cluster, name, f"open('{MARK}', 'w').write('{mark}')")
    return str(mark)


def read_mark(cluster: Cluster, name: str) -> str:
    return python_in(cluster, name, f"print(open('{MARK}').read())").strip()


def machine_of(cluster: Cluster, name: str) -> Machine:
    """The machine that a pod runs on; tests that break it can't run where it isn't ours."""
    if not cluster.machines:
        pytest.skip("the machines of an existing cluster are left alone")
    return cluster.machines[pod(cluster, name)["spec"]["nodeName"]]


@pytest.fixture(scope="module")
def nodes(full: Cluster) -> Iterator[Cluster]:
    """Three nodes of AgniRegistry from the image, each alone, in three zones."""
    assert places.NODE_IMAGE.exists(), "run `make images` first"
    if full.place != "existing":
        full.load_image(places.NODE_IMAGE)
    restricted = "pod-security.kubernetes.io/enforce=restricted"
    full.kubectl("create", "namespace", NAMESPACE)
    full.kubectl("label", "namespace", NAMESPACE, restricted)
    objects = applied(*node_services("node"), node_registry("node", REPLICAS, IMAGE_NAME))
    full.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=objects)
    wait_ready(full, *(f"node-{number}" for number in range(REPLICAS)))
    yield full
    full.kubectl("delete", "namespace", NAMESPACE)


def test_node_image_runs_restricted_in_every_zone(nodes: Cluster) -> None:
    pods = [pod(nodes, f"node-{number}") for number in range(REPLICAS)]
    zones = {zone_of(nodes, each["spec"]["nodeName"]) for each in pods}
    assert len(zones) == REPLICAS
    status, text = answer(nodes, pods[0]["status"]["podIP"])
    assert (status, bool(text)) == (200, True)


def test_service_leads_to_a_node(nodes: Cluster) -> None:
    assert answer(nodes, "node-client")[0] == 200


def test_callers_outside_of_the_sandbox_reach_a_service(nodes: Cluster, ours: None) -> None:
    address = nodes.get("service", "node-client", "-n", NAMESPACE)["spec"]["clusterIP"]
    connection = http.client.HTTPConnection(*nodes.reach(address, 7400), timeout=5)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()


def test_names_are_resolved_in_pods(nodes: Cluster) -> None:
    said = python_in(nodes, "node-0", "import socket; print(socket.gethostbyname('node-1.node'))")
    assert said.strip() == pod(nodes, "node-1")["status"]["podIP"]


def test_image_has_no_shell_and_cannot_be_written(nodes: Cluster) -> None:
    script = (
        "import os, pathlib, shutil\n"
        "print(os.getuid(), shutil.which('sh'), shutil.which('apt-get'))\n"
        "try: pathlib.Path('/opt/agniregistry/x').touch()\n"
        "except OSError as error: print(error.strerror)"
    )
    said = python_in(nodes, "node-0", script)
    assert said.splitlines() == ["65532 None None", "Read-only file system"]


def test_pod_that_is_deleted_comes_back_on_its_volume(nodes: Cluster) -> None:
    mark = write_mark(nodes, "node-1")
    nodes.tools.replace("pod", "node-1", NAMESPACE)
    wait_ready(nodes, "node-1")
    assert read_mark(nodes, "node-1") == mark
    assert pod(nodes, "node-1")["metadata"]["uid"] != mark


def test_drained_machine_gets_its_pod_back(nodes: Cluster) -> None:
    mark = write_mark(nodes, "node-1")
    machine = machine_of(nodes, "node-1")
    machine.drain()
    try:
        again = pod(nodes, "node-1")
        assert again["metadata"]["uid"] != mark
        assert again["status"]["phase"] == "Pending", "its volume is on that machine"
    finally:
        machine.uncordon()
    wait_ready(nodes, "node-1")
    assert read_mark(nodes, "node-1") == mark


def test_machine_loses_power_and_comes_back(nodes: Cluster) -> None:
    mark = write_mark(nodes, "node-2")
    machine = machine_of(nodes, "node-2")
    machine.power_off()
    lost = ("wait", "--for=condition=Ready=Unknown", f"node/{machine.name}", "--timeout=90s")
    nodes.kubectl(*lost)
    unready = ("wait", "--for=condition=Ready=False", "pod/node-2", "--timeout=30s")
    nodes.kubectl("-n", NAMESPACE, *unready)
    machine.power_on()
    nodes.kubectl("wait", "--for=condition=Ready", f"node/{machine.name}", "--timeout=90s")
    wait_ready(nodes, "node-2")
    until("it answers", lambda: answer_of_pod(nodes, "node-2") == 200, timeout_s=LOST_S)
    assert read_mark(nodes, "node-2") == mark


def test_network_outlives_a_machine(nodes: Cluster, ours: None) -> None:
    """With whichever machine had the lowest hardware address, that of everybody's gateway went."""
    machine = machine_of(nodes, "node-2")
    platform = nodes.platform
    assert isinstance(machine, RealMachine)
    assert isinstance(platform, FullPlatform)

    def gateway() -> str:
        (link,) = json.loads(platform.sandbox.run("ip", "-json", "link", "show", BRIDGE))
        return str(link["address"])

    assert gateway() == BRIDGE_HARDWARE_ADDRESS
    machine.power_off()
    assert gateway() == BRIDGE_HARDWARE_ADDRESS
    machine.power_on()
    assert gateway() == BRIDGE_HARDWARE_ADDRESS
    nodes.kubectl("wait", "--for=condition=Ready", f"node/{machine.name}", "--timeout=90s")
    wait_ready(nodes, "node-2")


def test_machine_is_cut_off_while_its_processes_live(nodes: Cluster) -> None:
    machine = machine_of(nodes, "node-0")
    machine.cut()
    lost = ("wait", "--for=condition=Ready=Unknown", f"node/{machine.name}", "--timeout=90s")
    nodes.kubectl(*lost)
    if isinstance(machine, RealMachine):
        assert any("agni-node" in command for command in machine.commands())
    machine.heal()
    nodes.kubectl("wait", "--for=condition=Ready", f"node/{machine.name}", "--timeout=90s")
    wait_ready(nodes, "node-0")
    until("it answers again", lambda: answer_of_pod(nodes, "node-0") == 200, timeout_s=LOST_S)


def answer_of_pod(cluster: Cluster, name: str) -> int:
    try:
        return answer(cluster, pod(cluster, name)["status"]["podIP"])[0]
    except PlatformError:
        return 0
