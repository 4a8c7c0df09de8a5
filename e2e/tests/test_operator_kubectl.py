"""What people see with kubectl, and what tools that write the same manifest again and again do."""

from __future__ import annotations

import re

import yaml
from operator_lab import Lab, registry_of
from test_kstatus import kstatus

from agni_e2e.fake_kubelet import Behaviour, at_once

COLUMNS = "NAME   NODES   READY   LEADERS   STATUS                               VERSION   AGE"
ROW = re.compile(
    r"web    3       3       [12]/[12]/[12]     all 3 nodes are ready and balanced   1\.0\.0     "
    r"[\dms]+"
)


def test_the_same_manifest_by_somebody_else_changes_nothing(lab: Lab) -> None:
    lab.apply()
    lab.start()
    lab.settled()
    before, writes = lab.registry(), lab.writes()
    text = yaml.safe_dump(registry_of(lab.namespace))
    diff = ("diff", "--server-side", "-f", "-")
    for manager in ("argocd-controller", "kustomize-controller"):
        named = f"--field-manager={manager}"
        assert lab.cluster.kubectl(*diff, named, stdin=text) == ""
        # Without --force-conflicts: nobody else holds any field of it.
        lab.cluster.kubectl("apply", "--server-side", named, "-f", "-", stdin=text)
    assert lab.cluster.kubectl("diff", "-f", "-", stdin=text) == "", "nor does a plain apply differ"
    after = lab.registry()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])
    fields = after["metadata"]["managedFields"]
    mine = [entry for entry in fields if entry["manager"] == "agniregistry-operator"]
    assert {entry.get("subresource") for entry in mine} == {"status"}
    assert lab.writes() == writes, "and the operator has nothing to do"


def test_what_kubectl_tells(lab: Lab) -> None:
    lab.apply()
    lab.start()
    lab.settled()
    space = ("-n", lab.namespace)
    head, row = lab.cluster.kubectl("get", "agnireg", *space).splitlines()
    assert head == COLUMNS
    assert ROW.fullmatch(row.rstrip()), row
    by_category = lab.cluster.kubectl("get", "agni", *space, "-o", "name").split()
    assert by_category == ["agniregistry.agnistack.online/web"]
    assert kstatus(lab.registry()) == "Current"

    lab.cluster.kubelets.rule = lambda pod: (
        Behaviour(waiting_reason="ImagePullBackOff")
        if pod["spec"]["containers"][0]["image"] == "registry:gone"
        else Behaviour()
    )
    try:
        lab.apply(image="registry:gone")
        lab.says("Stalled", "ImagePullBackOff", 60.0)
        told = " ".join(lab.cluster.kubectl("describe", "agnireg", "web", *space).split())
    finally:
        lab.cluster.kubelets.rule = at_once
    for words in (
        "Type: Ready",
        "Type: Stalled",
        "Reason: ImagePullBackOff",
        "change the spec, or go back to what it was",
        "every partition has a leader",
        "Operation: Kind: Update",
        "Warning ImagePullBackOff",
        "Normal DeletePod",
        "what it was made from has changed",
    ):
        assert words in told, told
    assert kstatus(lab.registry()) == "Failed"
