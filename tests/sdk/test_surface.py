"""The public surface: a golden list, twins of equal names, and an import that costs nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import agniregistry
from agniregistry import client, testing, types
from agniregistry.client import AsyncClient, Client
from agniregistry.testing import FakeRegistry

GOLDEN = {
    "agniregistry": """AgniError AsyncClient Capacity Client Filter Key Kind ReadOptions
        RetryPolicy Spec Timeout Tls""",
    "agniregistry.client": """AsyncBackup AsyncCache AsyncClient AsyncRegistration AsyncSession
        AsyncWatch Backup BatchResult Cache Client Registration RetryPolicy Session Timeout Tls
        Watch""",
    "agniregistry.config": "DEFAULT_TARGET RetryPolicy Timeout",
    "agniregistry.identity": """Bundle DevCa Identity Leaf Material Role SpiffeId Tls
        check_trust_domain load load_bundle load_identity""",
    "agniregistry.testing": "Clock FakeClock FakeRegistry SystemClock",
    "agniregistry.types": """BackupBegin BackupData BackupEnd BackupPart BackupSection
        BatchOperation Candidate Capacity Change ClusterMember ClusterMembers
        ClusterStatus Consistency
        DeregisterOperation Deregistered Discovery Draining EventType Exclusion ExclusionReason
        Filter Gap Header Instance Key Kind LeaseLoad Load Member MemberState Page PartitionRoute
        PartitionStatus Placement Present Progress ReadOptions Record RegisterOperation Registered
        RegistrationEvent RegistrationEventType RegistrationState Renewed RoutingTable Score
        SnapshotTaken Spec Started Status Synced UpdateOperation Updated WatchItem WatchMessage
        WatchPhase""",
}
METHODS = """batch cache deregister discover get list list_all put register renew routing session
    snapshot status update watch"""

ADMIN = """backup drain_member members place_partition remove_member restore return_member
    transfer_leader"""
"""What only a real cluster has: the fake registry is one node for ever."""


@pytest.mark.parametrize("module", GOLDEN)
def test_the_surface_is_the_golden_list(module: str) -> None:
    found = __import__(module, fromlist=["__all__"])
    assert sorted(found.__all__) == sorted(GOLDEN[module].split())
    for name in found.__all__:
        assert getattr(found, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        _ = agniregistry.Nonsense
    assert "Client" in dir(agniregistry)


def public(cls: type) -> set[str]:
    """A class's public methods."""
    return {
        name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")
    }


def test_the_clients_are_twins() -> None:
    assert public(Client) == {*METHODS.split(), *ADMIN.split(), "close"}
    assert public(AsyncClient) == {*METHODS.split(), *ADMIN.split(), "aclose"}
    for name in [*METHODS.split(), *ADMIN.split()]:
        parameters = inspect.signature(getattr(Client, name)).parameters
        assert parameters == inspect.signature(getattr(AsyncClient, name)).parameters, name


def test_the_fake_has_the_clients_signatures() -> None:
    for name in METHODS.split():
        parameters = inspect.signature(getattr(Client, name)).parameters
        assert parameters == inspect.signature(getattr(FakeRegistry, name)).parameters, name


def test_wire_messages_never_leak() -> None:
    for module in (client, types, testing):
        for name in module.__all__:
            assert "_pb2" not in getattr(getattr(module, name), "__module__", "")


def test_importing_the_package_imports_neither_grpc_nor_protobuf() -> None:
    script = (
        "import sys, time; start = time.perf_counter(); import agniregistry; "
        "took = time.perf_counter() - start; "
        "heavy = [m for m in ('grpc', 'google.protobuf', 'asyncio') if m in sys.modules]; "
        "assert not heavy, heavy; assert took < 0.1, took; print(agniregistry.Key.agent('a'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "default/agent/a"


def test_a_client_on_plaintext_does_without_cryptography() -> None:
    script = (
        "import sys; from agniregistry import Client; Client('127.0.0.1:1').close(); "
        "assert 'cryptography' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
