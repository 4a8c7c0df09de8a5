"""What the server refuses, refused by the fake: the same fields, reasons and bounds.

The contract tests hold the two equal; docs/api.md describes the rules.
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agniregistry import types as t
from agniregistry.errors import InvalidFieldError

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
FILTER_CHOICES_MAX = 64
MASK_PATHS_MAX = 128
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
_DOMAIN_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


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
    return unicodedata.category(character) == "Cc" or character in "\u2028\u2029\ufeff\ufffe"


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
        raise refuse(field, f"has {len(pairs)} pairs, at most {LABELS_MAX} are allowed")
    for name, value in pairs.items():
        try:
            text(f"{field} key", name, 1, LABEL_KEY_BYTES_MAX)
        except InvalidFieldError as error:
            raise InvalidFieldError(error.message, field=field) from error
        text(f"{field}.{name}", value, 0, LABEL_VALUE_BYTES_MAX)


def spec_field(spec: t.Spec, name: str) -> None:
    """One field of a spec."""
    match name:
        case "region":
            text("spec.region", spec.region, 1, REGION_BYTES_MAX)
        case "ip" if spec.ip:
            try:
                if "%" in spec.ip:
                    raise ValueError
                ipaddress.ip_address(spec.ip)
            except ValueError as error:
                message = "must be an IPv4 or IPv6 address in text form"
                raise refuse("spec.ip", message) from error
        case "domain" if spec.domain:
            text("spec.domain", spec.domain, 1, NAME_BYTES_MAX)
            parts = spec.domain.removesuffix(".").split(".")
            if not all(_DOMAIN_LABEL.fullmatch(part) for part in parts):
                raise refuse("spec.domain", "must be a DNS name, such as gateway.example.org")
        case "port":
            whole("spec.port", spec.port, 0, 65_535)
        case "capacity":
            capacity("spec.capacity", spec.capacity)
        case "labels":
            labels("spec.labels", spec.labels)
        case "owner" | "gateway":
            text(f"spec.{name}", getattr(spec, name), 0, NAME_BYTES_MAX)
        case "public_key":
            _size("spec.public_key", spec.public_key, PUBLIC_KEY_BYTES_MAX)
        case "payload":
            _size("spec.payload", spec.payload, PAYLOAD_BYTES_MAX)


def _size(field: str, value: bytes, most: int) -> None:
    if len(value) > most:
        raise refuse(field, f"has {len(value)} bytes, at most {most} are allowed")


def whole_spec(kind: t.Kind, spec: t.Spec) -> None:
    """A spec; a gateway must be reachable by a port, and by an address or a name."""
    for name in SPEC_FIELDS:
        spec_field(spec, name)
    if kind is t.Kind.GATEWAY:
        if spec.port == 0:
            raise refuse("spec.port", "must be 1..65535")
        if not spec.ip and not spec.domain:
            raise refuse("spec.ip", "is missing, give an address or a domain")


def mask(kind: t.Kind, spec: t.Spec, paths: Sequence[str]) -> None:
    """An update's mask, and those values that it names."""
    if not paths:
        raise refuse("update_mask", "is missing, name the fields that change")
    if len(paths) > MASK_PATHS_MAX:
        raise refuse("update_mask", f"has {len(paths)} paths, at most {MASK_PATHS_MAX} are allowed")
    for path in paths:
        field, _, part = path.partition(".")
        known = part in CAPACITY_FIELDS and field == "capacity" if part else field in SPEC_FIELDS
        if not known or path.endswith("."):
            raise refuse("update_mask", f'names "{path}", which is no field of a spec')
        spec_field(spec, field)
        if kind is t.Kind.GATEWAY and field == "port" and spec.port == 0:
            raise refuse("spec.port", "must be 1..65535")


def ttl(ttl_ms: int) -> None:
    """A time to live, or none."""
    if ttl_ms != 0 and not TTL_MS_MIN <= ttl_ms <= TTL_MS_MAX:
        raise refuse("ttl_ms", f"must be {TTL_MS_MIN}..{TTL_MS_MAX}, or 0 for none")


def drain(drain_ms: int, successor: str) -> None:
    """A time of draining, and who takes over."""
    whole("drain_ms", drain_ms, 0, DRAIN_MS_MAX)
    if drain_ms == 0 and successor:
        raise refuse("successor", "is only for draining, give drain_ms too")
    text("successor", successor, 0, NAME_BYTES_MAX)


def wanted(given: t.Filter) -> t.Filter:
    """The filter with its defaults, checked."""
    full = replace(given, namespace=given.namespace or "default")
    if full.kind is not None and full.kind not in tuple(t.Kind):
        raise refuse("filter.kind", "must be gateway or agent")
    text("filter.namespace", full.namespace, 1, NAME_BYTES_MAX)
    for field, count in (
        ("filter.regions", len(full.regions)),
        ("filter.statuses", len(full.statuses)),
    ):
        if count > FILTER_CHOICES_MAX:
            message = f"has {count} values, at most {FILTER_CHOICES_MAX} are allowed"
            raise refuse(field, message)
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
