"""The subjects of the contract: whatever claims to be the registry's API, one fixture for all.

`fake*` subjects need nothing built; `node*` subjects talk to the real node. Run a part with
`-k fake` or `-k node`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agniregistry import types as t
from agniregistry.client import Client
from agniregistry.testing import FakeRegistry

sys.path.insert(0, str(Path(__file__).parent))
from async_adapter import AsyncAdapter
from http_adapter import HttpAdapter

SUBJECTS = ("fake", "fake_grpc", "fake_async", "node_grpc", "node_async", "node_http")

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def fake_registry() -> Iterator[FakeRegistry[Any]]:
    """One fake for all tests: they keep to their own namespaces, as with the node."""
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture(scope="session")
def fake_address(fake_registry: FakeRegistry[Any]) -> Iterator[str]:
    """Where the fake is served over gRPC."""
    with fake_registry.serve() as address:
        yield address


@pytest.fixture(scope="session", params=SUBJECTS)
def registry(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Something with the methods of `Client`."""
    name: str = request.param
    if name == "fake":
        yield request.getfixturevalue("fake_registry")
        return
    if name.startswith("fake"):
        address = request.getfixturevalue("fake_address")
    else:
        address = request.getfixturevalue("node_process").address
    makers = {"grpc": Client, "async": AsyncAdapter, "http": HttpAdapter}
    subject = makers[name.partition("_")[2]](address)
    yield subject
    subject.close()


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{next(_numbers)}"


@pytest.fixture
def make(registry: Any, namespace: str) -> Maker:
    """Registers records in the test's namespace."""
    return Maker(registry, namespace)


class Maker:
    """Shortens what most tests begin with."""

    def __init__(self, registry: Any, namespace: str) -> None:
        self.registry = registry
        self.namespace = namespace

    def key(self, name: str = "a", kind: t.Kind = t.Kind.GATEWAY) -> t.Key:
        """A key in the namespace."""
        return t.Key(kind, name, self.namespace)

    def spec(self, **fields: Any) -> t.Spec:
        """The roadmap's gateway, with some fields changed."""
        values: dict[str, Any] = {
            "region": "global",
            "ip": "12.34.56.78",
            "domain": "global.gateway.agnistack.online",
            "port": 4000,
            "capacity": t.Capacity(cpu=1, bandwidth=20, memory=4096, storage=40960),
        }
        return t.Spec(**(values | fields))

    def put(self, name: str = "a", **fields: Any) -> t.Registered:
        """Registers a gateway; `ttl_ms`, `incarnation`, `expected_revision` go to the call."""
        options = {
            option: fields.pop(option)
            for option in ("ttl_ms", "incarnation", "expected_revision")
            if option in fields
        }
        kind = fields.pop("kind", t.Kind.GATEWAY)
        answer: t.Registered = self.registry.put(
            self.key(name, kind), self.spec(**fields), **options
        )
        return answer

    def filter(self, **fields: Any) -> t.Filter:
        """A filter within the namespace."""
        return t.Filter(namespace=self.namespace, **fields)

    def names(self, **fields: Any) -> set[str]:
        """The names that match."""
        page = self.registry.list(self.filter(**fields), page_size=1000)
        return {instance.key.name for instance in page.instances}
