"""Events: one an action, for `kubectl describe`; the same words aren't said again for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agniregistry_operator import names
from agniregistry_operator.kube import ApiError, Kube, path_of

log = logging.getLogger("agniregistry.operator")

AGAIN_S = 600.0
"""Time before the same Event is written again."""
REMEMBERED_MAX = 1_000
"""Events that are remembered as said."""
WORDS_MAX = 1_000
"""Characters of an Event's message."""


class Events:
    """Writes Events for one registry."""

    def __init__(self, kube: Kube, pod: str) -> None:
        self._kube, self._pod = kube, pod
        self._said: dict[tuple[str, str, str], float] = {}

    async def say(
        self, resource: Mapping[str, Any], reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Writes one, unless it was said lately. A lost Event is logged and no more."""
        meta = resource["metadata"]
        key = (meta["uid"], reason, message)
        now = time.monotonic()
        if now - self._said.get(key, -AGAIN_S) < AGAIN_S:
            return
        if len(self._said) >= REMEMBERED_MAX:
            self._said.clear()
        self._said[key] = now
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": f"{names.GROUP}/{names.VERSION}",
                "kind": names.KIND,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:WORDS_MAX],
            "source": {"component": names.MANAGER},
            "reportingComponent": names.MANAGER,
            "reportingInstance": self._pod,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            await self._kube.call("POST", path_of("v1", "Event", meta["namespace"]), event)
        except ApiError as error:
            log.warning("an event couldn't be written: %s", error.message)
