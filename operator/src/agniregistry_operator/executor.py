"""Carries a plan's actions out, one after the other, and tells what was refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agniregistry.errors import AgniError
from agniregistry_operator import failpoint, names
from agniregistry_operator.kube import ApiError, Kube
from agniregistry_operator.manifests.base import API_VERSIONS
from agniregistry_operator.model import actions as a
from agniregistry_operator.model.desired import Desired
from agniregistry_operator.observer import Memory, Refusal

log = logging.getLogger("agniregistry.operator")


class Executor:
    """Does what a plan says."""

    def __init__(
        self,
        kube: Kube,
        told: Callable[[a.Action, str], None],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._kube, self._told, self._leads = kube, told, leads

    async def run(self, actions: tuple[a.Action, ...], desired: Desired, memory: Memory) -> int:
        """Does all of them; answers how many have changed something. What is refused is remembered.

        The next look sees what was done. So after a refusal the rest goes on: no action relies on
        the one before it.
        """
        refusals: dict[str, Refusal] = {}
        where = (desired.namespace, desired.name)
        done = 0
        for action in actions:
            key = a.key_of(action)
            failpoint.reach(key)
            if not self._leads():
                # It was paused, and goes on with a plan of long ago: others act by now.
                log.warning("%s/%s: %s: not done without the lease", *where, key)
                break
            try:
                await self._do(action, desired, memory)
            except (ApiError, AgniError, ValueError) as error:
                before = memory.refusals.get(key)
                since = before.since if before else time.monotonic()
                refusals[key] = Refusal(str(error), since)
                log.warning("%s/%s: %s: %s", *where, key, error)
                self._told(action, f"refused: {error}")
                continue
            # A certificate that was asked for takes its time: that is no reason to hurry.
            done += not isinstance(action, a.RequestIdentity)
            log.info("%s/%s: %s: %s", *where, key, action.why)
            self._told(action, "")
        memory.refusals = refusals
        return done

    async def _do(self, action: a.Action, desired: Desired, memory: Memory) -> None:
        space = desired.namespace
        match action:
            case a.ApplyChild():
                await self._apply(action, desired)
            case a.KeepClaim():
                await self._kube.apply(action.manifest)
            case a.DeleteChild():
                version = API_VERSIONS[action.kind]
                await self._kube.delete(version, action.kind, space, action.name)
            case a.DeletePod():
                await self._kube.delete(
                    "v1", "Pod", space, action.name, uid=action.uid, force=action.force
                )
            case a.DeleteStatefulSet():
                await self._kube.delete(
                    "apps/v1", "StatefulSet", space, action.name, orphan=action.orphan
                )
            case a.DeleteClaim():
                kind = "PersistentVolumeClaim"
                await self._kube.delete("v1", kind, space, action.name, uid=action.uid)
            case a.RequestIdentity():
                await memory.identity.request(self._kube, desired, action.issuer, action.generation)
            case _:
                await memory.link.change(action, memory.addresses)

    async def _apply(self, action: a.ApplyChild, desired: Desired) -> None:
        """Applies an object; one that was not seen may be somebody else's."""
        if action.is_new:
            version = API_VERSIONS[action.kind]
            try:
                found = await self._kube.get(version, action.kind, desired.namespace, action.name)
            except ApiError as error:
                if not error.is_gone:
                    raise
            else:
                owners = found["metadata"].get("ownerReferences") or ()
                is_ours = desired.uid in {owner["uid"] for owner in owners}
                label = (found["metadata"].get("labels") or {}).get(names.LABEL_REGISTRY)
                if not is_ours and label != desired.name:
                    words = "it is there and belongs to somebody else; rename one of the two"
                    raise ApiError(409, "AlreadyExists", words)
        await self._kube.apply(action.manifest)
