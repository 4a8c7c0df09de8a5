"""What the server refuses, refused by the fake: the same fields, reasons and bounds.

The contract tests hold the two equal; docs/api.md describes the rules.
"""

from __future__ import annotations

import ipaddress
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agniregistry import types as t
from agniregistry.errors import InvalidFieldError, StalenessExceededError

NAME_BYTES_MAX = 253
REGION_BYTES_MAX = 63
LABEL_KEY_BYTES_MAX = 63
LABEL_VALUE_BYTES_MAX = 253
LABELS_MAX = 64
PUBLIC_KEY_BYTES_MAX = 4 << 10
PAYLOAD_BYTES_MAX = 8 << 10
TTL_MS_MIN = 1_000
TTL_MS_MAX = 86_400_000
DRAIN_MS_MAX = 3_600_000
BATCH_OPERATIONS_MAX = 1_000
RENEW_LEASES_MAX = 10_000
FILTER_REGIONS_MAX = 64
PORT_MAX = 65_535
DOMAIN_LABEL_BYTES_MAX = 63
PAGE_RECORDS_MAX = 1_000
PAGE_RECORDS_DEFAULT = 100
DISCOVER_RECORDS_MAX = 100
DISCOVER_RECORDS_DEFAULT = 3
DISCOVER_CHOICES_MAX = 16
EXPLAIN_NAMES_MAX = 100
EXPLAIN_SAMPLE = 10
PROGRESS_MS_MIN = 100
PROGRESS_MS_MAX = 600_000
PROGRESS_MS_DEFAULT = 10_000

SPEC_FIELDS = (
    "region",
    "ip",
    "domain",
    "port",
    "capacity",
    "labels",
    "owner",
    "gateway",
    "public_key",
    "payload",
)
CAPACITY_FIELDS = ("cpu", "bandwidth", "memory", "storage")
_HIDDEN = (
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0xFFF9, 0xFFFB),
    (0xE0000, 0xE007F),
)


def refuse(field: str, message: str) -> InvalidFieldError:
    """The refusal of a field."""
    return InvalidFieldError(f"{field} {message}", field=field)


def text(field: str, value: str, least: int, most: int) -> None:
    """Printable text of bounded size, in bytes of UTF-8."""
    try:
        size = len(value.encode())
    except (UnicodeEncodeError, AttributeError) as error:
        raise refuse(field, "must be text") from error
    if size < least:
        raise refuse(field, "is missing")
    if size > most:
        raise refuse(field, f"has {size} bytes, at most {most} are allowed")
    if any(_unprintable(character) for character in value):
        raise refuse(field, "has characters that can't be printed, leave them out")


def _unprintable(character: str) -> bool:
    """Control characters, and those that only change how others look."""
    code = ord(character)
    return (
        unicodedata.category(character) == "Cc"
        or code in (0xAD, 0x61C, 0xFEFF)
        or any(first <= code <= last for first, last in _HIDDEN)
    )


def whole(field: str, value: int, least: int, most: int) -> None:
    """An integer within bounds."""
    if not isinstance(value, int) or not least <= value <= most:
        raise refuse(field, f"must be {least}..{most}")


def key(given: t.Key, spec: t.Spec | None = None) -> t.Key:
    """The key with its defaults, checked."""
    if given.kind not in tuple(t.Kind):
        raise refuse("key.kind", "must be gateway or agent")
    name = given.name
    if not name and given.kind is t.Kind.GATEWAY and spec is not None:
        name = spec.domain
    full = replace(given, name=name, namespace=given.namespace or "default")
    if full.namespace == "*":
        raise refuse("key.namespace", 'must not be "*", which means all of them')
    text("key.namespace", full.namespace, 1, NAME_BYTES_MAX)
    text("key.name", full.name, 1, NAME_BYTES_MAX)
    return full


def capacity(field: str, amounts: t.Capacity | None) -> None:
    """Finite and not negative, each."""
    for name in CAPACITY_FIELDS if amounts is not None else ():
        value = getattr(amounts, name)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise refuse(f"{field}.{name}", "must be a finite number of at least 0")


def labels(field: str, pairs: Mapping[str, str]) -> None:
    """Bounded in number and size."""
    if len(pairs) > LABELS_MAX:
        raise refuse(field, f"must be at most {LABELS_MAX} pairs, not {len(pairs)}")
    for name, value in pairs.items():
        text(field, name, 1, LABEL_KEY_BYTES_MAX)
        text(f"{field}.{name}", value, 0, LABEL_VALUE_BYTES_MAX)


def whole_spec(spec: t.Spec) -> None:
    """A spec, in the order in which the server looks at it."""
    text("spec.region", spec.region, 1, REGION_BYTES_MAX)
    _addresses(spec)
    capacity("spec.capacity", spec.capacity)
    labels("spec.labels", spec.labels)
    text("spec.owner", spec.owner, 0, NAME_BYTES_MAX)
    text("spec.gateway", spec.gateway, 0, NAME_BYTES_MAX)
    _size("spec.public_key", spec.public_key, PUBLIC_KEY_BYTES_MAX)
    _size("spec.payload", spec.payload, PAYLOAD_BYTES_MAX)


def gateway(full: t.Key, spec: t.Spec) -> None:
    """A gateway is to be reached; an address needs a port anyway."""
    if full.kind is t.Kind.GATEWAY and not spec.ip and not spec.domain:
        raise refuse("spec.ip", "must be given for a gateway, or spec.domain")


def _addresses(spec: t.Spec) -> None:
    if spec.ip:
        try:
            if "%" in spec.ip:
                raise ValueError
            ipaddress.ip_address(spec.ip)
        except ValueError as error:
            message = "must be an IPv4 or IPv6 address in text form"
            raise refuse("spec.ip", message) from error
    text("spec.domain", spec.domain, 0, NAME_BYTES_MAX)
    parts = spec.domain.removesuffix(".").split(".") if spec.domain else ()
    if not all(_is_domain_label(part) for part in parts):
        raise refuse("spec.domain", "must be a DNS name, such as gateway.example.org")
    if not isinstance(spec.port, int) or not 0 <= spec.port <= PORT_MAX:
        raise refuse("spec.port", f"must be 1..{PORT_MAX}, not {spec.port}")
    if spec.port == 0 and (spec.ip or spec.domain):
        raise refuse("spec.port", f"must be 1..{PORT_MAX} where an address is given")


def _is_domain_label(part: str) -> bool:
    return (
        1 <= len(part.encode()) <= DOMAIN_LABEL_BYTES_MAX
        and not part.startswith("-")
        and not part.endswith("-")
        and all(character.isalnum() or character in "-_" for character in part)
    )


def _size(field: str, value: bytes, most: int) -> None:
    if len(value) > most:
        raise refuse(field, f"must be at most {most} bytes, not {len(value)}")


def mask(spec: t.Spec, paths: Sequence[str]) -> None:
    """An update's mask, and the values; what isn't changed may be left out."""
    if not paths:
        raise refuse("update_mask", "must name at least one field of the spec")
    for path in paths:
        field, dot, part = path.partition(".")
        known = field in SPEC_FIELDS and not dot
        known = known or (field == "capacity" and part in CAPACITY_FIELDS)
        if not known and not (field == "labels" and part):
            raise refuse("update_mask", f'names "{path}", which is no field of a spec')
    named = {path.partition(".")[0] for path in paths}
    whole_spec(
        replace(
            spec,
            region=spec.region if "region" in named else "unchanged",
            port=spec.port or (0 if "port" in named else 1),
        )
    )


def ttl(ttl_ms: int) -> None:
    """A time to live, or none."""
    if ttl_ms != 0 and not TTL_MS_MIN <= ttl_ms <= TTL_MS_MAX:
        raise refuse("ttl_ms", f"must be {TTL_MS_MIN}..{TTL_MS_MAX}, or 0 for none")


def drain(drain_ms: int, successor: str) -> None:
    """A time of draining, and who takes over."""
    whole("drain_ms", drain_ms, 0, DRAIN_MS_MAX)
    text("successor", successor, 0, NAME_BYTES_MAX)
    if drain_ms == 0 and successor:
        raise refuse("successor", "is only for draining, give drain_ms too")


def wanted(given: t.Filter) -> t.Filter:
    """The filter with its defaults, checked."""
    full = replace(given, namespace=given.namespace or "default")
    if full.kind is not None and full.kind not in tuple(t.Kind):
        raise refuse("filter.kind", "must be gateway or agent")
    text("filter.namespace", full.namespace, 1, NAME_BYTES_MAX)
    if len(full.regions) > FILTER_REGIONS_MAX:
        message = f"must be at most {FILTER_REGIONS_MAX}, not {len(full.regions)}"
        raise refuse("filter.regions", message)
    for region in full.regions:
        text("filter.regions", region, 1, REGION_BYTES_MAX)
    labels("filter.labels", full.labels)
    capacity("filter.min_capacity", full.min_capacity)
    capacity("filter.min_free", full.min_free)
    if not all(status in tuple(t.Status) for status in full.statuses):
        raise refuse("filter.statuses", "must be alive, suspect or draining")
    text("filter.name_prefix", full.name_prefix, 0, NAME_BYTES_MAX)
    text("filter.gateway", full.gateway, 0, NAME_BYTES_MAX)
    return full


def progress(interval_ms: int | None) -> int:
    """The progress interval, with its default."""
    if not interval_ms:
        return PROGRESS_MS_DEFAULT
    whole("progress_interval_ms", interval_ms, PROGRESS_MS_MIN, PROGRESS_MS_MAX)
    return interval_ms


def watched(given: t.Filter) -> t.Filter:
    """A watch's filter: only what changes a record can be watched."""
    full = wanted(given)
    if full.min_free is not None:
        raise refuse("filter.min_free", "can't be watched; use min_capacity")
    if full.statuses:
        raise refuse("filter.statuses", "can't be watched; leave it out")
    return full


def leases(lease_ids: Sequence[int], loads: Sequence[t.LeaseLoad]) -> None:
    """A packed renewal."""
    for field, count in (("lease_ids", len(lease_ids)), ("loads", len(loads))):
        if count > RENEW_LEASES_MAX:
            raise refuse(field, f"must be at most {RENEW_LEASES_MAX} a call, not {count}")
    known = set(lease_ids)
    for position, load in enumerate(loads):
        capacity(f"loads[{position}].free", load.free)
    for load in loads:
        if load.lease_id not in known:
            raise refuse("loads.lease_id", f"has {load.lease_id}, not among lease_ids")


def read(options: t.ReadOptions, revision: int) -> None:
    """How to read, from a state at this revision."""
    field = "read.max_staleness_ms"
    if options.max_staleness_ms < 0:
        raise refuse(field, "must not be negative")
    if options.max_staleness_ms > 0 and options.consistency is not t.Consistency.STALE:
        raise refuse(field, "is only for stale reads")
    if options.consistency is t.Consistency.STALE and options.at_least.get(0, 0) > revision:
        raise StalenessExceededError("the fake has not reached what read.at_least asks for")


def explained(names: Sequence[str], namespace: str) -> None:
    """The names that discovery is to explain."""
    if len(names) > EXPLAIN_NAMES_MAX:
        raise refuse("explain_names", f"has more than {EXPLAIN_NAMES_MAX} names")
    if names and namespace == "*":
        raise refuse("explain_names", "can't be used with namespace *")
