"""The fake's mass-expiry guard: those who fall silent together are kept as SUSPECT for a while.

A domain is a region, or all records of one namespace behind one gateway. It is looked at whenever
the fake is, so what a node decides early is decided here at the deadline. Suspects whose hold is
over go all at once and not at a rate. Why there is one: docs/decisions, suspects and deadlines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agniregistry import types as t

SHARE_PERCENT = 30
"""The share of a domain's leases above which their silence is one fault, in percent."""
LEASES_MIN = 5
"""Silent leases below which it never is."""
LATE_AFTER_PERCENT = 60
"""The part of its time to live after which a lease that wasn't renewed counts as silent."""

Domain = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leased:
    """A record with a lease, as the guard sees it."""

    record: t.Record
    deadline_ms: int
    """When its lease runs out, on the fake's clock."""

    def is_silent(self, now_ms: int) -> bool:
        """Whether it has missed its renewals."""
        left = self.record.ttl_ms * (100 - LATE_AFTER_PERCENT) // 100
        return self.deadline_ms - left <= now_ms


@dataclass(frozen=True, slots=True)
class _Gone:
    domain: Domain
    until_ms: int
    """How long it counts as one of those that fell silent together."""


class Guard:
    """Which domains are held, and until when."""

    def __init__(self, *, is_on: bool = True) -> None:
        self.is_on = is_on
        """Whether anything is ever held."""
        self._until_ms: dict[Domain, int] = {}
        self._over: set[Domain] = set()
        """Those whose hold has ended with the last look."""
        self._gone: list[_Gone] = []

    @property
    def held(self) -> int:
        """How many domains are."""
        return len(self._until_ms)

    def until_ms(self, record: t.Record) -> int | None:
        """When a record that is overdue goes; None where it isn't held."""
        held = (self._until_ms.get(domain) for domain in domains_of(record))
        return max((until for until in held if until is not None), default=None)

    def look(self, leases: Iterable[Leased], now_ms: int) -> None:
        """Takes in who is silent, before what is due is removed."""
        self._gone = [gone for gone in self._gone if gone.until_ms > now_ms]
        gone = Counter(each.domain for each in self._gone)
        total, silent, last_ms = Counter(gone), Counter(gone), Counter[Domain]()
        late: set[Domain] = set()
        for lease in leases:
            for domain in domains_of(lease.record):
                total[domain] += 1
                if lease.is_silent(now_ms):
                    silent[domain] += 1
                    late.add(domain)
                    over_ms = lease.deadline_ms + lease.record.ttl_ms
                    last_ms[domain] = max(last_ms[domain], over_ms)
        held = self._until_ms.items()
        self._over = {domain for domain, until in held if domain not in late or until <= now_ms}
        for domain in self._over:
            del self._until_ms[domain]
        self._gone = [gone for gone in self._gone if gone.domain not in self._over]
        # What is still silent where a hold is over was held for long enough.
        for domain in late.difference(self._until_ms, self._over) if self.is_on else ():
            is_one_fault = silent[domain] * 100 > total[domain] * SHARE_PERCENT
            if silent[domain] >= LEASES_MIN and is_one_fault and last_ms[domain] > now_ms:
                self._until_ms[domain] = last_ms[domain]

    def removed(self, record: t.Record, now_ms: int) -> None:
        """A lease has run out: where it wasn't held, it counts for one more time to live."""
        until_ms = now_ms + record.ttl_ms
        domains = (domain for domain in domains_of(record) if domain not in self._over)
        self._gone.extend(_Gone(domain, until_ms) for domain in domains)


def domains_of(record: t.Record) -> Iterator[Domain]:
    """What a record can lose together with others."""
    yield (record.spec.region,)
    if record.spec.gateway:
        yield (record.key.namespace, record.spec.gateway)
