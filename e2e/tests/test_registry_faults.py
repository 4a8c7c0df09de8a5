"""What happens to a registry on Kubernetes, under load, without anybody having wanted it."""

from __future__ import annotations

import json

import pytest
from load_lab import LoadLab
from registry_lab import is_ready, real_machine

from agni_e2e.waiting import until

pytestmark = pytest.mark.full

QUORUM_TOLD_S = 60.0
CRASH_GAP_S_MAX = 6.0
"""An election takes little over a second; the rest is for a machine on which all else runs, too."""
HANDED_OVER_GAP_S_MAX = 3.0


def test_leaders_pod_is_killed(loaded: LoadLab) -> None:
    registry, index = loaded.registry, loaded.leader()
    uid = registry.uid(index)
    with loaded.fault("leader's pod deleted by force", gap_s_max=CRASH_GAP_S_MAX):
        force = ("--force", "--grace-period=0", "--wait=false")
        registry.kubectl("delete", "pod", f"{registry.name}-{index}-0", *force)
        registry.replaced(index, uid)
        registry.settled()


def test_leaders_process_is_killed(loaded: LoadLab) -> None:
    registry, index = loaded.registry, loaded.leader()
    machine = real_machine(loaded.cluster, registry.machine_of(index))

    def restarts() -> int:
        return int(registry.pod(index)["status"]["containerStatuses"][0]["restartCount"])

    before = restarts()
    with loaded.fault("leader's process killed (kill -9)", gap_s_max=CRASH_GAP_S_MAX):
        machine.kill_pod(f"{registry.name}-{index}-0")
        registry.until("it was restarted", lambda: restarts() > before, 60.0)
        registry.until("it is ready", lambda: is_ready(registry.pod(index)), 60.0)
        registry.settled()


def test_volume_is_deleted(loaded: LoadLab) -> None:
    registry, index = loaded.registry, loaded.leader()
    uid, member = registry.uid(index), registry.status()["nodes"][index]["memberId"]
    with loaded.fault("leader's volume deleted", gap_s_max=HANDED_OVER_GAP_S_MAX):
        claim = f"data-{registry.name}-{index}-0"
        registry.kubectl("delete", "pvc", claim, "--wait=false")
        registry.replaced(index, uid)
        registry.settled()
    assert registry.status()["nodes"][index]["memberId"] != member, "it joined anew"


def test_pod_is_evicted(loaded: LoadLab) -> None:
    registry, index = loaded.registry, loaded.leader()
    uid, name = registry.uid(index), f"{registry.name}-{index}-0"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{registry.namespace}/pods/{name}/eviction"
    with loaded.fault("leader's pod evicted", gap_s_max=HANDED_OVER_GAP_S_MAX):
        registry.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
        registry.replaced(index, uid)
        registry.settled()


def test_machine_is_drained(loaded: LoadLab) -> None:
    registry = loaded.registry
    index, machine = loaded.victim()
    uid = registry.uid(index)
    with loaded.fault("machine drained and given back", gap_s_max=HANDED_OVER_GAP_S_MAX):
        machine.drain()
        machine.uncordon()
        registry.replaced(index, uid)
        registry.settled()


def test_machine_loses_power(loaded: LoadLab) -> None:
    registry = loaded.registry
    index, machine = loaded.victim()
    with loaded.fault("machine powered off and on again", gap_s_max=CRASH_GAP_S_MAX):
        machine.power_off()
        loaded.machine_is(machine, "Unknown")
        registry.until("it is noticed", lambda: not registry.is_settled(), 60.0)
        machine.power_on()
        loaded.machine_is(machine, "True")
        registry.until("its node is ready", lambda: is_ready(registry.pod(index)), 120.0)
        registry.settled()


def test_machine_is_cut_off(loaded: LoadLab) -> None:
    registry = loaded.registry
    index, machine = loaded.victim()
    uid = registry.uid(index)
    with loaded.fault("machine cut off, its process alive", gap_s_max=CRASH_GAP_S_MAX):
        machine.cut()
        loaded.machine_is(machine, "Unknown")
        assert any("agni-node" in command for command in machine.commands())
        registry.until("it is noticed", lambda: not registry.is_settled(), 60.0)
        machine.heal()
        loaded.machine_is(machine, "True")
        registry.until("its node is ready", lambda: is_ready(registry.pod(index)), 120.0)
        registry.settled()
    assert registry.uid(index) == uid, "nobody had a reason to stop it"


def test_lost_quorum_is_told_and_nothing_destroyed(loaded: LoadLab) -> None:
    """Calls fail meanwhile, of course; nothing that was acknowledged before is lost."""
    registry = loaded.registry
    machines = [m for m in map(registry.machine_of, range(3)) if m != loaded.safe_machine]
    victims = [real_machine(loaded.cluster, name) for name in machines]
    loaded.operator_on_safe_machine()
    kinds = "statefulsets,persistentvolumeclaims,certificates,services,configmaps"

    def there() -> dict[str, str]:
        items = registry.get(kinds)["items"]
        return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["uid"] for i in items}

    before = there()
    loaded.ask("begin")
    for machine in victims:
        machine.power_off()
    until(
        "QuorumHealthy is False",
        lambda: registry.condition("QuorumHealthy").get("status") == "False",
        timeout_s=QUORUM_TOLD_S,
    )
    words = registry.condition("QuorumHealthy")
    for machine in victims:
        loaded.machine_is(machine, "Unknown")
    registry.until(
        "the operator has seen that machines are gone",
        lambda: [n["state"] for n in registry.status()["nodes"]].count("Down") == len(victims),
        60.0,
    )
    assert there() == before
    for machine in victims:
        machine.power_on()
    for machine in victims:
        loaded.machine_is(machine, "True")
    registry.settled()
    assert there() == before
    loaded.calm()
    found = loaded.ask("report")
    loaded.tell(
        f"two of three machines off: {words['reason']}: {words['message']}; writes stopped for "
        f"{found['gap_s']:.0f} s, {found['failed']} calls failed"
    )
    assert not found["wrong"], found["wrong"]
    assert not found["leases"]["lost"], found["leases"]
    assert not found["watch"]["faults"], found["watch"]
