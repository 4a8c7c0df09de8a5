"""Who of several operators acts: a Lease of the API server, held by one at a time.

The time at which it was taken is the operator's epoch, made to grow with each taking: every admin
call carries it, and the registry refuses an older one. So an operator that was paused while it held
the lease does no harm when it goes on. The epoch survives a Lease that somebody deletes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agniregistry_operator.kube import ApiError, Kube, path_of
from agniregistry_operator.model.times import parse

log = logging.getLogger("agniregistry.operator")

VERSION, KIND = "coordination.k8s.io/v1", "Lease"
DURATION_S = 10
"""How long a holder that is silent keeps the lease."""
RENEW_S = 3.0
"""Time between two renewals."""
GIVE_UP_S = 7.0
"""How long renewals may fail before the holder stops: well before others may take it."""
RETRY_S = 1.0
"""Time between two looks of those that wait."""


def _micro(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Seen:
    """A Lease as this operator saw it, and when by its own clock."""

    version: str
    holder: str
    at: float


class Elector:
    """Takes the lease, keeps it, gives it back."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._path = path_of(VERSION, KIND, namespace, name)
        self._collection = path_of(VERSION, KIND, namespace)
        self._meta = {"name": name, "namespace": namespace}
        self._identity, self._clock = identity, clock
        self._seen: Seen | None = None
        self._lease: dict[str, Any] = {}
        self._renewed_at = 0.0
        self.epoch = 0

    async def acquire(self) -> None:
        """Returns when the lease is this operator's."""
        waits = False
        while True:
            try:
                if await self._try():
                    self._renewed_at = self._clock()
                    log.info("leads with epoch %d", self.epoch)
                    return
                if not waits:
                    log.info("waits for the lease, which %s has", self._seen and self._seen.holder)
                waits = True
            except ApiError as error:
                log.warning("the lease can't be taken: %s", error.message)
            await asyncio.sleep(RETRY_S)

    async def _try(self) -> bool:
        try:
            lease = await self._kube.call("GET", self._path)
        except ApiError as error:
            if not error.is_gone:
                raise
            lease = {"metadata": dict(self._meta), "spec": {}}
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = lease["metadata"].get("resourceVersion", "")
        now = self._clock()
        if self._seen is None or self._seen.version != version:
            self._seen = Seen(version, holder, now)
        # Clocks of two machines are never compared: silence is measured by this one's.
        lasts = float(spec.get("leaseDurationSeconds") or DURATION_S)
        is_silent = now - self._seen.at > lasts
        if holder and holder != self._identity and not is_silent:
            return False
        return await self._take(lease, spec)

    async def _take(self, lease: dict[str, Any], spec: dict[str, Any]) -> bool:
        before = parse(spec.get("acquireTime")) or 0.0
        taken = max(time.time(), before + 0.001)
        lease["spec"] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": _micro(taken),
            "renewTime": _micro(time.time()),
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
        }
        lease |= {"apiVersion": VERSION, "kind": KIND}
        is_new = "resourceVersion" not in lease["metadata"]
        try:
            if is_new:
                self._lease = await self._kube.call("POST", self._collection, lease)
            else:
                self._lease = await self._kube.call("PUT", self._path, lease)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        self.epoch = int((parse(lease["spec"]["acquireTime"]) or taken) * 1000)
        return True

    def holds(self) -> bool:
        """Whether nobody else can have taken the lease yet, by this operator's clock."""
        return self._clock() - self._renewed_at < DURATION_S

    async def keep(self) -> None:
        """Renews the lease; returns when it is lost."""
        pause = RENEW_S
        while True:
            await asyncio.sleep(pause)
            pause = RENEW_S
            try:
                left = GIVE_UP_S - (self._clock() - self._renewed_at)
                await asyncio.wait_for(self._renew(), max(0.1, left))
                self._renewed_at = self._clock()
            except (ApiError, TimeoutError) as error:
                lost = False
                if isinstance(error, ApiError) and error.status == 409:
                    lost, pause = not await self._is_mine_still(), 0.0
                if lost or self._clock() - self._renewed_at >= GIVE_UP_S:
                    log.error("the lease is lost: %s", error)
                    return

    async def _is_mine_still(self) -> bool:
        """Whether what has changed the lease was a renewal whose answer didn't come.

        It is renewed again at once then, from what it is now.
        """
        try:
            lease = await self._kube.call("GET", self._path)
        except ApiError as error:
            # Nobody knows; whether there is time for another attempt is asked next.
            return not error.is_gone
        now, mine = lease.get("spec") or {}, self._lease["spec"]
        if any(now.get(key) != mine[key] for key in ("holderIdentity", "acquireTime")):
            return False
        self._lease = lease
        return True

    async def _renew(self) -> None:
        lease = dict(self._lease)
        lease["spec"] = {**lease["spec"], "renewTime": _micro(time.time())}
        self._lease = await self._kube.call("PUT", self._path, lease)

    async def release(self) -> None:
        """Gives the lease back, so that the next need not wait; nobody may be renewing it."""
        try:
            # A renewal that was cancelled on its way may have come through: its answer is unknown.
            lease = await self._kube.call("GET", self._path)
            if lease["spec"].get("holderIdentity") != self._identity:
                return
            lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._kube.call("PUT", self._path, lease)
        except ApiError as error:
            log.warning("the lease couldn't be given back: %s", error.message)
