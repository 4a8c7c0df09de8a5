"""What no schema can see: each becomes a condition in time, nothing is destroyed, and it heals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_lab import Lab, Operators, install_crd, several
from test_kstatus import kstatus
from theatre import Theatre

from agni_e2e import Cluster, builder, cert_manager
from agni_e2e.api import Api, Object
from agni_e2e.fake_kubelet import Behaviour, at_once

SEEN_S = 60.0
"""How long it may take until the condition says so."""
Reasons = Callable[[dict[str, str]], None]


@pytest.fixture
def waits_for(quick: Cluster) -> Iterator[Reasons]:
    """Has containers wait for a reason, by their image."""

    def change(reasons: dict[str, str]) -> None:
        def rule(pod: Object) -> Behaviour:
            image = pod["spec"]["containers"][0]["image"]
            return Behaviour(waiting_reason=reasons.get(image, ""))

        quick.kubelets.rule = rule
        quick.kubelets.retry()

    yield change
    quick.kubelets.rule = at_once


def kept(lab: Lab) -> dict[str, str]:
    """The objects that hold a registry's data and identity, by their own identities."""
    kinds = ("statefulsets/", "persistentvolumeclaims/", "certificates/", "configmaps/")
    found = lab.children().items()
    return {name: o["metadata"]["uid"] for name, o in found if name.startswith(kinds)}


def stays_whole(lab: Lab, reason: str, words: str, changes: dict[str, Any]) -> None:
    """What can't be carried out stops at the first node, says why, and can be taken back."""
    lab.apply()
    lab.settled()
    objects, pods = kept(lab), lab.pods()
    lab.apply(**changes)
    stalled = lab.says("Stalled", reason, SEEN_S)
    assert stalled["status"] == "True"
    assert words in stalled["message"]
    assert "go back" in stalled["message"], "it says what to do"
    assert lab.condition("QuorumHealthy")["status"] == "True"
    assert kstatus(lab.registry()) == "Failed"
    others = {name for name, uid in lab.pods().items() if pods[name] == uid}
    assert len(others) == 2, "the other nodes are as they were"
    assert kept(lab) == objects, "nothing was destroyed"
    lab.apply()
    lab.settled()
    assert lab.condition("Stalled")["status"] == "False"
    assert kstatus(lab.registry()) == "Current"
    assert kept(lab) == objects
    assert lab.stage.model.joins == 3, "and every node has its volume still"


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no-image": ("ImagePullBackOff", "told to say ImagePullBackOff", {"image": "registry:gone"}),
    "crashes": ("CrashLoopBackOff", "told to say CrashLoopBackOff", {"image": "registry:broken"}),
    "too-large": (
        "Unschedulable",
        "Insufficient cpu",
        {"resources": {"requests": {"cpu": "1000"}}},
    ),
}


def test_pods_that_can_not_run(
    quick: Cluster, theatre: Theatre, operators: Operators, waits_for: Reasons
) -> None:
    waits_for({"registry:gone": "ImagePullBackOff", "registry:broken": "CrashLoopBackOff"})
    spaces = [*CASES, "never-well"]
    with several(quick, theatre, operators, spaces) as found, ThreadPoolExecutor(4) as pool:
        operators.start(*spaces)
        waiting = [
            pool.submit(stays_whole, lab, *CASES[lab.namespace])
            for lab in found
            if lab.namespace in CASES
        ]
        waiting.append(pool.submit(is_mended_before_it_is_founded, found[-1]))
        for each in waiting:
            each.result()
        operators.close()


def is_mended_before_it_is_founded(lab: Lab) -> None:
    lab.apply(image="registry:gone")
    lab.says("Stalled", "ImagePullBackOff", SEEN_S)
    lab.apply()
    lab.settled()
    assert lab.stage.model.joins == 3


def test_an_issuer_that_is_not_there(lab: Lab) -> None:
    space = ("-n", lab.namespace)
    lab.cluster.kubectl(*space, "create", "configmap", "roots", "--from-literal=ca.crt=none")
    lab.apply(tls={"issuerRef": {"name": "ghost"}, "trustConfigMap": {"name": "roots"}})
    lab.start()
    stalled = lab.says("Stalled", "IssuerMissing", SEEN_S)
    assert "Issuer ghost isn't there; make it" in stalled["message"]
    assert lab.condition("CertificatesReady")["reason"] == "IssuerMissing"
    assert not lab.pods(), "no node is made that could have no identity"
    ca = yaml.safe_dump_all(own_issuer("ghost"))
    lab.cluster.kubectl(*space, "apply", "-f", "-", stdin=ca)
    lab.cluster.kubectl(*space, "wait", "--for=condition=Ready", "certificate/ghost")
    lab.settled()
    assert lab.condition("Stalled")["status"] == "False"


def own_issuer(name: str) -> list[dict[str, Any]]:
    """A user's own issuer, with its root."""
    first = f"{name}-root"
    root = {
        "isCA": True,
        "commonName": name,
        "secretName": name,
        "privateKey": {"algorithm": "ECDSA", "size": 256},
        "issuerRef": {"name": first},
    }

    def made(kind: str, own: str, spec: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "cert-manager.io/v1",
            "kind": kind,
            "metadata": {"name": own},
            "spec": spec,
        }

    return [
        made("Issuer", first, {"selfSigned": {}}),
        made("Certificate", name, root),
        made("Issuer", name, {"ca": {"secretName": name}}),
    ]


def test_a_quorum_that_is_lost(lab: Lab) -> None:
    lab.apply(repair={"after": "10m"})
    lab.start()
    lab.settled()
    objects, pods = kept(lab), lab.pods()
    silent = sorted(lab.cluster.machines)[:2]
    for name in silent:
        lab.cluster.machines[name].power_off()
    try:
        quorum = lab.says("QuorumHealthy", "NoAnswer", SEEN_S)
        assert quorum["status"] == "False"
        assert "nothing is deleted" in quorum["message"]
        assert lab.condition("Ready")["status"] == "False"
    finally:
        for name in silent:
            lab.cluster.machines[name].power_on()
    lab.settled()
    assert lab.pods() == pods
    assert kept(lab) == objects


def test_without_cert_manager(tmp_path: Path, ours: None) -> None:
    with Cluster("quick", cert_manager=False) as cluster, closing(Api(cluster.kubeconfig)) as api:
        install_crd(cluster)
        cluster.kubectl("create", "namespace", "shop")
        theatre = Theatre(api)
        operators = Operators(cluster, theatre, tmp_path)
        lab = Lab(cluster, "shop", theatre, operators)
        try:
            lab.apply()
            lab.start()
            stalled = lab.says("Stalled", "CertManagerMissing", SEEN_S)
            assert "install it, or give spec.tls.secretRefs" in stalled["message"]
            assert not lab.pods()
            built = builder.ensure("quick")
            cert_manager.start(cluster.processes, cluster.tools, built, cluster.kubeconfig)
            lab.settled()
            assert lab.condition("Stalled")["status"] == "False"
        finally:
            operators.close()
            theatre.close()
