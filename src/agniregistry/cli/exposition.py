"""What a node tells of itself under /metrics: fetched over HTTP, read from Prometheus' text format.

Only what agnictl shows is taken from it, so this knows sums, rates and quantiles and no more.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from math import inf
from typing import TypeAlias

from agniregistry.identity import Tls

PAGE_BYTES_MAX = 16 << 20
"""A longer page is no node's: 1024 partitions need less than a tenth of it."""

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")

Labels: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of /metrics."""

    at_s: float = 0.0
    """When it was asked for, in seconds of a clock that only goes on."""
    samples: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)
    """Labels and values by name."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples that have these labels; 0 where there are none."""
        return sum(value for found, value in self.samples.get(name, ()) if _has(found, labels))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The samples that have these labels, by the value of one more."""
        return {
            found[label]: value
            for found, value in self.samples.get(name, ())
            if label in found and _has(found, labels)
        }

    def labels(self, name: str) -> Labels:
        """The labels of a metric's first sample."""
        found = self.samples.get(name)
        return found[0][0] if found else {}


def parse(text: str, at_s: float = 0.0) -> Page:
    """Reads a page; what is no sample is passed over, as every reader of this format does."""
    page = Page(at_s)
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is None:
            continue
        name, written, value = match.groups()
        labels = {key: _unescaped(text) for key, text in _LABEL.findall(written or "")}
        try:
            page.samples.setdefault(name, []).append((labels, float(value)))
        except ValueError:
            continue
    return page


def rate(name: str, now: Page, before: Page | None, **labels: str) -> float | None:
    """How much a counter grew in a second; None without an earlier page or after a restart."""
    if before is None or now.at_s <= before.at_s:
        return None
    grown = now.total(name, **labels) - before.total(name, **labels)
    return None if grown < 0 else grown / (now.at_s - before.at_s)


def quantile(name: str, share: float, now: Page, before: Page | None = None) -> float | None:
    """The value below which this share of a histogram's observations between two pages lies.

    As Prometheus has it: evenly spread within a bucket. What lies beyond the last bound is that
    bound. None where nothing was observed.
    """
    counts = _bounds(name, now)
    if before is not None:
        earlier = _bounds(name, before)
        counts = {bound: count - earlier.get(bound, 0.0) for bound, count in counts.items()}
    bounds = sorted(counts)
    if not bounds or counts[bounds[-1]] <= 0:
        return None
    rank, low, below = share * counts[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        count = counts[bound]
        if count >= rank and bound != inf:
            inside = count - below
            return bound if inside <= 0 else low + (bound - low) * (rank - below) / inside
        if bound != inf:
            low, below = bound, count
    return low


def fetch(address: str, tls: Tls | None, timeout_s: float) -> str:
    """The text of a node's /metrics.

    Raises:
        OSError: When it can't be reached, proves to be somebody else, or doesn't answer so.
    """
    connection = _connection(address, tls, timeout_s)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read(PAGE_BYTES_MAX)
    except HTTPException as error:
        raise OSError(f"no answer over HTTP: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"/metrics was answered with {answer.status}")
    return body.decode("utf-8", "replace")


def _connection(address: str, tls: Tls | None, timeout_s: float) -> HTTPConnection:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        number = int(port)
    except ValueError:
        raise OSError(f"'{address}' is not HOST:PORT") from None
    if tls is None:
        return HTTPConnection(host, number, timeout=timeout_s)
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if str(tls.cert_file):
        context.load_cert_chain(str(tls.cert_file), str(tls.key_file))
    return HTTPSConnection(host, number, timeout=timeout_s, context=context)


def _bounds(name: str, page: Page) -> dict[float, float]:
    """The counts of a histogram's buckets, of all its label sets together, by upper bound."""
    counts: dict[float, float] = {}
    for labels, value in page.samples.get(f"{name}_bucket", ()):
        bound = float(labels.get("le", "nan"))
        counts[bound] = counts.get(bound, 0.0) + value
    return counts


def _has(found: Labels, wanted: Mapping[str, str]) -> bool:
    return all(found.get(name) == value for name, value in wanted.items())


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text)
