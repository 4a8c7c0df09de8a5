"""Bad input: each with a status, a stable reason, the field's name, and no damage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t

BAD_SPECS = [
    ({"ip": "", "domain": ""}, "spec.ip"),
    ({"region": ""}, "spec.region"),
    ({"region": "r" * 64}, "spec.region"),
    ({"region": "a\nb"}, "spec.region"),
    ({"ip": "300.1.1.1"}, "spec.ip"),
    ({"ip": "1.2.3"}, "spec.ip"),
    ({"ip": "not an address"}, "spec.ip"),
    ({"ip": "::ffff:1.2.3.4.5"}, "spec.ip"),
    ({"domain": "a..b"}, "spec.domain"),
    ({"domain": "-a.example"}, "spec.domain"),
    ({"domain": "has space.example"}, "spec.domain"),
    ({"domain": "d" * 64 + ".example"}, "spec.domain"),
    ({"domain": "d." * 127}, "spec.domain"),
    ({"port": 0}, "spec.port"),
    ({"port": 65_536}, "spec.port"),
    ({"port": 2**32 - 1}, "spec.port"),
    ({"port": -1}, "spec.port"),
    ({"capacity": t.Capacity(cpu=-0.5)}, "spec.capacity.cpu"),
    ({"capacity": t.Capacity(bandwidth=-1)}, "spec.capacity.bandwidth"),
    ({"labels": {"": "x"}}, "spec.labels"),
    ({"labels": {"k" * 64: "x"}}, "spec.labels"),
    ({"labels": {"k": "v" * 254}}, "spec.labels.k"),
    ({"labels": {"k": "a\x00b"}}, "spec.labels.k"),
    ({"labels": {f"k{i}": "" for i in range(65)}}, "spec.labels"),
    ({"owner": "o" * 254}, "spec.owner"),
    ({"gateway": "g" * 254}, "spec.gateway"),
    ({"public_key": b"k" * 4097}, "spec.public_key"),
    ({"payload": b"p" * 8193}, "spec.payload"),
]
NOT_A_NUMBER = [
    ({"capacity": t.Capacity(memory=math.nan)}, "spec.capacity.memory"),
    ({"capacity": t.Capacity(storage=math.inf)}, "spec.capacity.storage"),
]


def refused(call: Callable[[], Any], field: str) -> errors.InvalidRequestError:
    """The call must be refused for this field."""
    with pytest.raises(errors.InvalidRequestError) as caught:
        call()
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.field == field
    assert caught.value.message
    assert not caught.value.retryable
    return caught.value


def case(row: tuple[Any, ...]) -> str:
    """A short name for a row of the table."""
    return repr(row)[:60]


@pytest.mark.parametrize(("fields", "field"), BAD_SPECS, ids=map(case, BAD_SPECS))
def test_bad_specs(registry: Any, make: Any, fields: dict[str, Any], field: str) -> None:
    refused(lambda: make.put("bad", **fields), field)
    with pytest.raises(errors.NotFoundError):
        registry.get(make.key("bad"))


@pytest.mark.parametrize(("fields", "field"), NOT_A_NUMBER, ids=map(case, NOT_A_NUMBER))
def test_capacities_that_are_no_numbers(
    registry: Any, make: Any, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        make.put("bad", **fields)
    # JSON has no such numbers: over HTTP the body is refused before any field is known.
    assert caught.value.field == field or getattr(registry, "speaks_json", False)


@pytest.mark.parametrize("name", ["", "n" * 254, "a\x07b", "a\u2028b", "a\u200bb", "é" * 127])
def test_bad_names(registry: Any, make: Any, name: str) -> None:
    key = make.key(name, t.Kind.AGENT)
    refused(lambda: registry.put(key, t.Spec(region="eu")), "key.name")


@pytest.mark.parametrize("bad", ["n" * 254, "a\tb", "*"])
def test_bad_namespaces(registry: Any, bad: str) -> None:
    key = t.Key.agent("a", bad)
    refused(lambda: registry.put(key, t.Spec(region="eu")), "key.namespace")


def test_names_of_the_greatest_length_and_other_scripts_are_fine(registry: Any, make: Any) -> None:
    for name in ("n" * 253, "é" * 126, "網關-1", "with space/and:punctuation"):
        key = make.key(name, t.Kind.AGENT)
        registry.put(key, t.Spec(region="eu"))
        assert registry.get(key).key == key


def test_an_unknown_kind(registry: Any, make: Any) -> None:
    key = t.Key("router", "a", make.namespace)
    with pytest.raises(errors.AgniError) as caught:
        registry.put(key, make.spec())
    assert caught.value.field == "key.kind" or getattr(registry, "speaks_json", False)


@pytest.mark.parametrize("ttl_ms", [-1, 1, 999, 86_400_001, 2**62])
def test_ttl_out_of_bounds(make: Any, ttl_ms: int) -> None:
    refused(lambda: make.put("bad", ttl_ms=ttl_ms), "ttl_ms")


@pytest.mark.parametrize("ttl_ms", [1_000, 86_400_000])
def test_ttl_at_its_bounds(make: Any, ttl_ms: int) -> None:
    assert make.put("good", ttl_ms=ttl_ms).ttl_ms == ttl_ms


@pytest.mark.parametrize("paths", [[], ["nonsense"], ["capacity.gpu"], ["key.name"], ["region."]])
def test_bad_update_masks(registry: Any, make: Any, paths: list[str]) -> None:
    make.put(owner="before")
    refused(lambda: registry.update(make.key(), make.spec(owner="x"), paths), "update_mask")
    assert registry.get(make.key()).spec.owner == "before"


def test_an_update_checks_what_it_changes(registry: Any, make: Any) -> None:
    make.put()
    refused(lambda: registry.update(make.key(), t.Spec(port=65_536), ["port"]), "spec.port")
    refused(
        lambda: registry.update(make.key(), t.Spec(capacity=t.Capacity(cpu=-1)), ["capacity.cpu"]),
        "spec.capacity.cpu",
    )


@pytest.mark.parametrize(
    ("paths", "changed", "field"),
    [
        (["ip", "domain"], {}, "spec.ip"),
        (["ip", "domain", "port"], {}, "spec.ip"),
        (["domain", "owner", "ip"], {"owner": "x"}, "spec.ip"),
        (["port"], {}, "spec.port"),
    ],
)
def test_an_update_leaves_no_gateway_without_an_address(
    registry: Any, make: Any, paths: list[str], changed: dict[str, Any], field: str
) -> None:
    revision = make.put(owner="before").revision
    spec = t.Spec(**changed)
    refused(lambda: registry.update(make.key(), spec, paths), field)
    (answer,) = registry.batch([t.UpdateOperation(make.key(), spec, tuple(paths))])
    assert isinstance(answer, errors.InvalidFieldError)
    assert answer.field == field
    found = registry.get(make.key()).record
    assert (found.revision, found.spec) == (revision, make.spec(owner="before"))


def test_a_gateway_gives_up_one_address_and_not_the_other(registry: Any, make: Any) -> None:
    """Each update alone would leave one; what is stored by then decides."""
    make.put()
    registry.update(make.key(), t.Spec(), ["ip"])
    refused(lambda: registry.update(make.key(), t.Spec(), ["domain"]), "spec.ip")
    assert registry.get(make.key()).spec == make.spec(ip="")
    registry.update(make.key(), t.Spec(ip="::1", port=1), ["ip", "domain"])
    assert registry.get(make.key()).spec == make.spec(ip="::1", domain="")


def test_an_agent_may_give_up_its_addresses(registry: Any, make: Any) -> None:
    make.put(kind=t.Kind.AGENT)
    registry.update(make.key(kind=t.Kind.AGENT), t.Spec(), ["ip", "domain", "port"])
    assert registry.get(make.key(kind=t.Kind.AGENT)).spec == make.spec(ip="", domain="", port=0)


@pytest.mark.parametrize("drain_ms", [-1, 3_600_001])
def test_draining_out_of_bounds(registry: Any, make: Any, drain_ms: int) -> None:
    make.put()
    refused(lambda: registry.deregister(make.key(), drain_ms=drain_ms), "drain_ms")
    assert registry.get(make.key()).status is t.Status.ALIVE


def test_a_successor_needs_draining(registry: Any, make: Any) -> None:
    make.put()
    refused(lambda: registry.deregister(make.key(), successor="b"), "successor")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"regions": ("r" * 64,)}, "filter.regions"),
        ({"labels": {"k" * 64: ""}}, "filter.labels"),
        ({"min_capacity": t.Capacity(cpu=-1)}, "filter.min_capacity.cpu"),
        ({"min_free": t.Capacity(memory=-1)}, "filter.min_free.memory"),
        ({"name_prefix": "p" * 254}, "filter.name_prefix"),
        ({"gateway": "g" * 254}, "filter.gateway"),
    ],
)
def test_bad_filters(registry: Any, make: Any, fields: dict[str, Any], field: str) -> None:
    wanted = make.filter(kind=t.Kind.GATEWAY, **fields)
    refused(lambda: registry.list(wanted), field)
    refused(lambda: registry.discover(wanted), field)


def test_bad_page_sizes_and_tokens(registry: Any, make: Any) -> None:
    wanted = make.filter(kind=t.Kind.GATEWAY)
    refused(lambda: registry.list(wanted, page_size=1001), "page_size")
    for token in ("nonsense", "AAAA", "é"):
        with pytest.raises(errors.PageTokenInvalidError) as caught:
            registry.list(wanted, page_token=token)
        assert caught.value.field == "page_token"


def test_bad_discovery(registry: Any, make: Any) -> None:
    wanted = make.filter(kind=t.Kind.GATEWAY)
    refused(lambda: registry.discover(wanted, limit=101), "limit")
    refused(lambda: registry.discover(wanted, choices=17), "choices")
    refused(lambda: registry.discover(make.filter()), "filter.kind")
    refused(
        lambda: registry.discover(wanted, explain=True, explain_names=["x"] * 101),
        "explain_names",
    )


def test_bad_staleness(registry: Any, make: Any) -> None:
    make.put()
    read = t.ReadOptions(t.Consistency.STALE, max_staleness_ms=-1)
    refused(lambda: registry.get(make.key(), read=read), "read.max_staleness_ms")


@pytest.mark.parametrize("interval_ms", [1, 99, 600_001, -5])
def test_bad_progress_intervals(registry: Any, make: Any, interval_ms: int) -> None:
    refused(
        lambda: next(registry.watch(make.filter(), progress_interval_ms=interval_ms)),
        "progress_interval_ms",
    )


def test_what_cannot_be_watched(registry: Any, make: Any) -> None:
    refused(
        lambda: next(registry.watch(make.filter(statuses=(t.Status.DRAINING,)))),
        "filter.statuses",
    )
    refused(
        lambda: next(registry.watch(make.filter(min_free=t.Capacity(cpu=1)))),
        "filter.min_free",
    )


def test_batches_and_renewals_out_of_bounds(registry: Any, make: Any) -> None:
    one = t.DeregisterOperation(make.key("none"))
    refused(lambda: registry.batch([]), "operations")
    refused(lambda: registry.batch([one] * 1001), "operations")
    refused(lambda: registry.renew([1] * 10_001), "lease_ids")
    refused(lambda: registry.renew([5], [t.LeaseLoad(5, t.Capacity(cpu=-1))]), "loads[0].free.cpu")
    refused(lambda: registry.renew([5], [t.LeaseLoad(6, t.Capacity())]), "loads.lease_id")


def test_an_unknown_partition(registry: Any) -> None:
    refused(lambda: registry.snapshot([100_000]), "partitions")


def test_a_message_of_64_mib(registry: Any, make: Any) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        make.put("huge", payload=bytes(64 << 20))
    assert caught.value.reason in ("MESSAGE_TOO_LARGE", "INVALID_FIELD")
    assert make.put("after").created
