"""The operator on a real API server with cert-manager; only the registry's processes are played."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from operator_lab import SETTLE_S, SPEC, Lab

from agni_e2e import PlatformError
from agni_e2e.waiting import until


def test_operator_brings_up_scales_and_rolls(lab: Lab) -> None:
    lab.apply()
    lab.start()
    lab.settled()
    assert lab.stage.model.joins == 3
    meta = lab.registry()["metadata"]
    assert not meta.get("finalizers"), "a namespace must never wait for the operator"
    assert not meta.get("annotations"), "nothing is written on the resource but its status"

    lab.apply(nodes=4)
    lab.settled()
    assert sorted(lab.pods()) == ["web-0-0", "web-1-0", "web-2-0", "web-3-0"]
    lab.apply(nodes=3)
    lab.settled()
    assert sorted(lab.pods()) == ["web-0-0", "web-1-0", "web-2-0"]

    old = lab.pods()
    lab.apply(config={"queue_limit": 1000})
    lab.settled()
    new = lab.pods()
    assert set(old) == set(new)
    assert not set(old.values()) & set(new.values()), "every pod was restarted"
    assert lab.stage.model.joins == 4, "and every node kept its volume"


def test_operator_replaces_a_lost_volume_and_hands_over(lab: Lab) -> None:
    lab.apply()
    first = lab.start()
    lab.settled()
    first.stop()
    lab.start()
    space = ("-n", lab.namespace)
    lab.cluster.kubectl("delete", "pvc", "data-web-1-0", *space, "--wait=false")
    until("the node has joined anew", lambda: lab.stage.model.joins == 4, timeout_s=SETTLE_S)
    lab.settled()
    epochs = lab.stage.epochs
    assert epochs == sorted(set(epochs)), "each operator has a higher epoch"


def test_operator_puts_back_what_somebody_changes(lab: Lab) -> None:
    lab.apply()
    lab.start()
    lab.settled()
    space = ("-n", lab.namespace)
    patch = json.dumps({"spec": {"selector": {"agnistack.online/registry": "other"}}})
    lab.cluster.kubectl("patch", "service", "web", *space, "--type=merge", "-p", patch)

    def is_back() -> bool:
        spec = lab.cluster.get("service", "web", *space)["spec"]
        return bool(spec["selector"] == {"agnistack.online/registry": "web"})

    until("the Service is as it was", is_back, timeout_s=60.0)


def test_operator_stands_back_from_what_is_somebody_elses(lab: Lab) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": lab.namespace},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
    }
    lab.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(service))
    lab.apply()
    lab.start()
    until(
        "it says so", lambda: lab.condition("Stalled").get("status") == "True", timeout_s=SETTLE_S
    )
    assert "belongs to somebody else" in lab.condition("Stalled")["message"]
    spec = lab.cluster.get("service", "web", "-n", lab.namespace)["spec"]
    assert spec["selector"] == {"app": "shop"}


BAD: dict[str, dict[str, Any]] = {
    "replicationFactor must be 1, 3 or 5": {"replicationFactor": 2},
    "nodes must be at least replicationFactor": {"nodes": 2},
    "partitions can't be changed": {"partitions": 8},
    "size can only grow": {"storage": {"size": "300Mi"}},
    "storageClassName can't be changed": {"storage": {"size": "1Gi", "storageClassName": "other"}},
    "trustDomain can't be set or unset later": {"trustDomain": "example.org"},
    "field not declared in schema": {"config": {"queue_limits": 1}},
    "should be greater than or equal to 1": {"config": {"queue_limit": 0}},
    "renewBefore must be shorter than duration": {"tls": {"duration": "1h", "renewBefore": "2h"}},
    "issuerRef needs trustConfigMap": {"tls": {"issuerRef": {"name": "ca"}}},
    "two clients can't have the same secretName": {
        "tls": {"clients": [{"name": "a", "secretName": "s"}, {"name": "b", "secretName": "s"}]}
    },
    "a client's name must be": {"tls": {"clients": [{"name": "Worker"}]}},
    "clients needs cert-manager": {
        "tls": {
            "secretRefs": {"nodePrefix": "mine", "operator": "mine-operator"},
            "clients": [{"name": "worker"}],
        }
    },
    "give one of bootstrap, issuerRef and secretRefs": {
        "tls": {"bootstrap": {}, "issuerRef": {"name": "ca"}, "trustConfigMap": {"name": "x"}}
    },
}


def test_bad_specs_are_refused_in_words(lab: Lab) -> None:
    lab.apply(storage={"size": "1Gi"})
    for words, changes in BAD.items():
        with pytest.raises(PlatformError, match=words):
            lab.apply(**({"storage": {"size": "1Gi"}} | changes))
    found = {
        "apiVersion": "agnistack.online/v1alpha1",
        "kind": "AgniRegistry",
        "metadata": {"name": "w" * 41, "namespace": lab.namespace},
        "spec": SPEC,
    }
    with pytest.raises(PlatformError, match="at most 40 characters"):
        lab.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(found))
