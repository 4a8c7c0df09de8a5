"""Records that live by their leases, renewed by the SDK's handles: none may be lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

from records import leased, spec_of

from agniregistry import AsyncClient
from agniregistry.client import AsyncRegistration
from agniregistry.errors import AgniError
from agniregistry.types import RegistrationEvent, RegistrationEventType, RegistrationState

COUNT = 30
TTL_MS = 15_000


class Leases:
    """Handles, and what they told."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._handles: list[AsyncRegistration] = []
        self._events: Counter[str] = Counter()

    async def work(self) -> None:
        """Registers them; the client renews them from then on."""
        for number in range(COUNT):
            handle = await self._client.register(
                leased(number), spec_of(0), ttl_ms=TTL_MS, on_event=self._told
            )
            self._handles.append(handle)

    def begin(self) -> None:
        """Forgets what was told before."""
        self._events.clear()

    async def report(self) -> dict[str, Any]:
        """How many renewals there were, and which leases were lost."""
        lost = [
            str(each.key) for each in self._handles if each.state is not RegistrationState.ACTIVE
        ]
        for handle in self._handles:
            try:
                found = await self._client.get(handle.key)
            except AgniError as error:
                lost.append(f"{handle.key}: {error}")
                continue
            if found.record.lease_id != handle.result.lease_id:
                lost.append(f"{handle.key}: it has another lease")
        kinds = (RegistrationEventType.LOST, RegistrationEventType.FAILED)
        told = [f"{self._events[kind.value]} {kind.value}" for kind in kinds if self._events[kind]]
        return {"renewed": self._events[RegistrationEventType.RENEWED.value], "lost": lost + told}

    def _told(self, event: RegistrationEvent) -> None:
        self._events[event.type.value] += 1
