"""What a setting's value may be. Each check answers what is wrong with a value, or None."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], str | None]


def between(least: int, most: int) -> Check:
    """A check for whole numbers with both bounds included."""

    def check(value: int) -> str | None:
        return None if least <= value <= most else f"must be {least}..{most}, not {value}"

    return check


def check_partitions(value: int) -> str | None:
    """A power of two that the engine can route by the top bits of a hash."""
    if 1 <= value <= 1024 and value & (value - 1) == 0:
        return None
    return f"must be a power of two, 1..1024, not {value}"


def check_listen(value: str) -> str | None:
    """host:port, with brackets around an IPv6 address."""
    host, colon, port = value.rpartition(":")
    if not colon or not host:
        return f"must be host:port such as 127.0.0.1:7400, not {value!r}"
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return f"must have brackets around an IPv6 address, such as [::1]:7400, not {value!r}"
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        return f"must end in a port, 0..65535, not {port!r}"
    return None


def check_health_listen(value: str) -> str | None:
    """Empty, or host:port."""
    return check_listen(value) if value else None


def check_cluster_id(value: str) -> str | None:
    """Empty, or 16 bytes in hexadecimal."""
    if re.fullmatch(r"([0-9a-f]{32})?", value):
        return None
    return f"must be 32 digits 0-9a-f, or empty, not {value!r}"


def check_region(value: str) -> str | None:
    """What a record's region may be, too."""
    if len(value.encode("utf-8", "replace")) > 63:
        return "must be at most 63 bytes"
    return None if value.isprintable() else "must not have control characters"


def check_data_dir(value: str) -> str | None:
    """A path that can be opened at all."""
    if not value:
        return "must name a folder"
    return "must not have a NUL character" if "\0" in value else None


def check_path(value: str) -> str | None:
    """Empty, or a path that can be opened at all."""
    return "must not have a NUL character" if "\0" in value else None


def check_trust_domain(value: str) -> str | None:
    """Empty, or what may stand in a SPIFFE ID."""
    if re.fullmatch(r"[a-z0-9._-]{0,255}", value):
        return None
    return f"must be at most 255 of a-z, 0-9, dot, dash and underscore, not {value[:64]!r}"


def check_log_level(value: str) -> str | None:
    """A level that the engine knows."""
    levels = ("debug", "info", "warn", "error", "off")
    return None if value in levels else f"must be {', '.join(levels)}, not {value!r}"


def check_name(value: str) -> str | None:
    """Empty, or what a DNS label may be."""
    if re.fullmatch(r"[a-z0-9-]{0,63}", value):
        return None
    return f"must be 1..63 of a-z, 0-9 and -, or empty, not {value!r}"


def check_address(value: str) -> str | None:
    """Empty, or host:port with a port that can be connected to."""
    if not value:
        return None
    fault = check_listen(value)
    return fault or ("must have a port other than 0" if value.endswith(":0") else None)


def check_seeds(value: str) -> str | None:
    """Empty, or host:port several times, with commas."""
    seeds = value.split(",") if value else []
    if len(seeds) > 16:
        return f"must be at most 16 addresses, not {len(seeds)}"
    if len(set(seeds)) < len(seeds):
        return "must name no address twice"
    faults = [
        fault for seed in seeds if (fault := check_address(seed) or (not seed and "is empty"))
    ]
    return f"has an address that {faults[0]}" if faults else None
