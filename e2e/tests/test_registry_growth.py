"""What somebody wants of a registry on Kubernetes, under load: size, image, settings, keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from load_lab import NODES, SPEC, LoadLab
from registry_lab import client_certificate

from agni_e2e import places
from agni_images.names import image_name
from agni_images.oci import rename_archive

pytestmark = pytest.mark.full

MORE = 5
GAP_S_MAX = 3.0
KEYS_S = 180.0
"""The kubelet brings new keys within about a minute."""
ROTATION_S = 600.0


def scale(lab: LoadLab, nodes: int) -> None:
    lab.registry.kubectl("scale", "agnireg", lab.registry.name, f"--replicas={nodes}")


def pods(lab: LoadLab) -> set[str]:
    return {lab.registry.uid(index) for index in range(NODES)}


def test_three_nodes_become_five_and_three(loaded: LoadLab) -> None:
    with loaded.fault("3 to 5 nodes", gap_s_max=GAP_S_MAX):
        scale(loaded, MORE)
        loaded.registry.settled()
    nodes = loaded.registry.status()["nodes"]
    assert all(node["replicas"] for node in nodes), "each has its share"
    with loaded.fault("5 to 3 nodes", gap_s_max=GAP_S_MAX):
        scale(loaded, NODES)
        loaded.registry.settled()
    claims = loaded.registry.get("pvc")["items"]
    assert len(claims) == NODES, "volumes of nodes that left are gone, as the spec says"


def test_scale_in_is_taken_back(loaded: LoadLab) -> None:
    registry = loaded.registry
    with loaded.fault("scale-in taken back while data moves", gap_s_max=GAP_S_MAX):
        scale(loaded, MORE)
        registry.settled()
        before = [node["memberId"] for node in registry.status()["nodes"]]
        scale(loaded, NODES)

        def empties() -> bool:
            operation = registry.status().get("operation") or {}
            return (operation.get("kind"), operation.get("step")) == ("ScaleIn", "Empty")

        registry.until("nodes are being emptied", empties, 60.0)
        scale(loaded, MORE)
        registry.settled()
        assert [node["memberId"] for node in registry.status()["nodes"]] == before
        scale(loaded, NODES)
        registry.settled()


def test_image_is_rolled(loaded: LoadLab, tmp_path: Path) -> None:
    if loaded.cluster.place == "existing":
        pytest.skip("an existing cluster's images are its owner's")
    name = image_name("agniregistry-node", tag="next")
    archive = places.IMAGES / "node-next.tar"
    rename_archive(places.NODE_IMAGE, name, archive)
    loaded.cluster.load_image(archive)
    before = pods(loaded)
    with loaded.fault("image rolled", gap_s_max=GAP_S_MAX):
        loaded.registry.apply(SPEC | {"image": name})
        loaded.registry.settled()
    assert not before & pods(loaded), "each pod is a new one"
    for index in range(NODES):
        assert loaded.registry.pod(index)["spec"]["containers"][0]["image"] == name


def test_settings_are_rolled(loaded: LoadLab) -> None:
    before = pods(loaded)
    spec = dict(loaded.registry.resource()["spec"])
    with loaded.fault("settings rolled", gap_s_max=GAP_S_MAX):
        loaded.registry.patch("agnireg", "web", {"spec": {"config": {"queue_limit": 2000}}})
        loaded.registry.settled()
    assert not before & pods(loaded), "each pod is a new one"
    assert spec["nodes"] == NODES


def test_certificates_are_renewed(loaded: LoadLab) -> None:
    """Of all nodes, and of the load itself; one of them by losing its Secret."""
    registry = loaded.registry
    old = {address: said["certificate"] for address, said in loaded.nodes().items()}
    uids = pods(loaded)
    condition = {"type": "Issuing", "status": "True", "reason": "Test", "message": "renewed now"}
    with loaded.fault("every certificate renewed", gap_s_max=GAP_S_MAX):
        registry.kubectl("delete", "secret", f"{registry.name}-0-tls", "--wait=false")
        for name in ("web-1", "web-2", "load"):
            added = [{"op": "add", "path": "/status/conditions/-", "value": condition}]
            words = ("--subresource=status", "--type=json", "-p", json.dumps(added))
            registry.kubectl("patch", "certificate", name, *words)

        def are_new() -> bool:
            said = loaded.nodes()
            return all(said[each]["certificate"] != cert for each, cert in old.items())

        registry.until("each node uses its new one", are_new, KEYS_S)
        registry.settled()
    assert pods(loaded) == uids, "no pod was restarted for it"


def test_root_is_rotated(loaded: LoadLab) -> None:
    registry = loaded.registry
    uids = pods(loaded)
    old = {said["trust"] for said in loaded.nodes().values()}
    with loaded.fault("root rotated", gap_s_max=GAP_S_MAX):
        registry.patch("agnireg", "web", {"spec": {"tls": {"bootstrap": {"generation": 2}}}})
        registry.until("the new root issues", lambda: step(loaded) == "Reissue", ROTATION_S)
        registry.create(client_certificate(registry, "load", generation=2))
        registry.until("the old root is gone", lambda: step(loaded) == "Settled", ROTATION_S)
        registry.settled()
    assert registry.status()["trust"]["generation"] == 2
    new = {said["trust"] for said in loaded.nodes().values()}
    assert len(new) == 1
    assert new != old
    assert pods(loaded) == uids, "no pod was restarted for it"
    script = (
        "from agniregistry import Client, Tls\n"
        "tls = Tls('/etc/trust/ca.crt', '/etc/load/tls.crt', '/etc/load/tls.key')\n"
        f"with Client('{registry.service_address}', tls=tls) as client:\n"
        "    print(client.status().trust_sha256)\n"
    )
    assert {registry.python("load", script).strip()} == new, "whoever connects now is let in, too"


def step(lab: LoadLab) -> str:
    trust = lab.registry.status().get("trust") or {}
    return str(trust.get("step", ""))
