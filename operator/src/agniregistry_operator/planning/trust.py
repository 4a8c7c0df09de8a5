"""Identity: the roots that are trusted, who issues, and the staged change from one root to another.

```
Settled ──► Distribute ──────────► Reissue ───────────────► Withdraw ───────────► Settled
            new root into the      leaves from the new      old root out of the
            bundle, until every    root, one node at a      bundle, until every
            node reports it        time, and clients'       node reports that
```
The step is in the status, so that a restart goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from agniregistry.placement import NodeState
from agniregistry_operator import names
from agniregistry_operator.manifests import certificates as made
from agniregistry_operator.manifests.base import Manifest
from agniregistry_operator.manifests.shared import trust_config_map
from agniregistry_operator.model.actions import RequestIdentity
from agniregistry_operator.model.desired import TlsMode
from agniregistry_operator.model.observed import SECRET_MISSING, Certificate
from agniregistry_operator.model.status import Operation, Trust
from agniregistry_operator.planning.clients import Wait, waits_for_clients
from agniregistry_operator.planning.view import View

SETTLED, DISTRIBUTE, REISSUE, WITHDRAW = "Settled", "Distribute", "Reissue", "Withdraw"


@dataclass(frozen=True)
class TrustPlan:
    """What identity needs now."""

    trust: Trust
    manifests: tuple[Manifest, ...] = ()
    requests: tuple[RequestIdentity, ...] = ()
    blocked: tuple[str, str] | None = None
    """Why nodes can't be made yet: reason and words."""
    sentence: str = ""
    """What a rotation does; empty while there is none."""
    operation: Operation | None = None
    """The rotation; none while there is none."""
    stalled: tuple[str, str] | None = None
    """Why it can't go on by itself: reason and words."""
    keep: frozenset[str] = field(default_factory=frozenset)
    """Issuers and root certificates that are still of use."""


def plan_trust(view: View) -> TrustPlan:
    """Answer what identity needs now."""
    if view.desired.tls.mode is TlsMode.SECRETS:
        return _own_secrets(view)
    if not view.observed.has_cert_manager:
        words = (
            "cert-manager isn't installed: install it, or give spec.tls.secretRefs with "
            "certificates of your own"
        )
        return TrustPlan(view.observed.status.trust, blocked=("CertManagerMissing", words))
    if view.desired.tls.mode is TlsMode.ISSUER:
        return _users_issuer(view)
    return _bootstrap(view)


def _own_secrets(view: View) -> TrustPlan:
    blocked = None
    if 0 not in view.observed.identities:
        name = view.desired.tls.operator_secret
        fault = view.observed.identity_fault or "it isn't there"
        blocked = _without_own(name, fault)
    return TrustPlan(Trust(), blocked=blocked)


def _without_own(name: str, fault: str) -> tuple[str, str]:
    """What is wrong with the operator's own Secret: reason and words."""
    return "IdentityMissing", f"the operator's certificate, Secret {name}: {fault}"


def _secrets_fault(view: View) -> tuple[str, str] | None:
    """What is wrong with the user's own Secrets, the operator's first."""
    if fault := view.observed.identity_fault:
        return _without_own(view.desired.tls.operator_secret, fault)
    faults = view.observed.secret_faults
    first = next((faults[index] for index in view.places if index in faults), None)
    return (SECRET_MISSING, f"{first}; spec.tls.secretRefs") if first else None


def _users_issuer(view: View) -> TrustPlan:
    roots = view.observed.user_trust
    if roots is None:
        name = view.desired.tls.trust_config_map
        words = f"the ConfigMap {name} with the key ca.crt isn't there; spec.tls.trustConfigMap"
        return TrustPlan(Trust(), blocked=("TrustMissing", words))
    issuer = made.issuer_of(view.desired, 0)
    manifests = [trust_config_map(view.desired, {}, roots)]
    manifests += [made.node_certificate(view.desired, index, issuer) for index in view.places]
    manifests += _clients(view, issuer)
    requests: tuple[RequestIdentity, ...] = ()
    blocked = None
    if 0 not in view.observed.identities:
        requests = (RequestIdentity(issuer, 0, "the operator needs a certificate of its own"),)
        if not (view.is_founded and view.observed.has_identity):
            blocked = _waiting_for_issuer(view, issuer)
    return TrustPlan(Trust(), tuple(manifests), requests, blocked)


def _waiting_for_issuer(view: View, issuer: Mapping[str, str]) -> tuple[str, str]:
    """Why the user's issuer hasn't issued the operator's certificate, by cert-manager's words."""
    name = f"{issuer['kind']} {issuer['name']}"
    fault = view.observed.identity_fault
    if "not found" in fault:
        remedy = "make it, or name another one in spec.tls.issuerRef"
        return "IssuerMissing", f"the {name} isn't there; {remedy}"
    remedy = f"see its conditions: {fault}" if fault else "is cert-manager running?"
    return "IssuerPending", f"waiting for the {name}; {remedy}"


def _bootstrap(view: View) -> TrustPlan:
    trust, wait = _advance(view)
    desired, roots = view.desired, view.observed.roots
    manifests = [made.self_signed_issuer(desired)]
    kept = {names.self_signed(desired.name)}
    for generation in sorted({*trust.bundle, trust.generation}):
        manifests += made.root_objects(desired, generation)
        kept.add(names.root(desired.name, generation))
    wanted = [number for number in trust.bundle if number not in roots]
    if trust.generation not in view.observed.identities and trust.generation not in wanted:
        wanted.append(trust.generation)
    why = "the operator needs a certificate of its own, and the root that vouches for it"
    requests = tuple(
        RequestIdentity(made.issuer_of(desired, number), number, why) for number in wanted
    )
    blocked = None
    if bundle := _bundle(trust, roots):
        used = {number: roots[number] for number in trust.bundle}
        manifests.append(trust_config_map(desired, used, bundle))
    elif not view.is_founded:
        fault = view.observed.identity_fault
        blocked = ("RootPending", f"waiting for the root: {fault}" if fault else
                   "waiting for cert-manager to issue the root; is it running?")  # fmt: skip
    manifests += _leaves(view, trust)
    # All at once, as the operator's own: nodes trust both roots, and each client waits for none.
    manifests += _clients(view, made.issuer_of(desired, trust.generation))
    if trust.step != SETTLED:
        kept |= {
            child.name
            for child in view.observed.children.values()
            if child.name.startswith(f"{desired.name}-ca-")
        }
    operation = view.operation("Trust", trust.step, wait.whom) if wait.words else None
    return TrustPlan(
        trust,
        tuple(manifests),
        requests,
        blocked,
        sentence=wait.words,
        operation=operation,
        stalled=_stalled(view, wait, operation),
        keep=frozenset(kept),
    )


def _stalled(view: View, wait: Wait, operation: Operation | None) -> tuple[str, str] | None:
    """Whether a rotation doesn't go on by itself."""
    if wait.somebody_must_act:
        return "ClientsOfOldRoot", wait.words
    if operation is None or view.now - operation.since < view.desired.ready_deadline_s:
        return None
    return "RotationWaits", wait.words


def _bundle(trust: Trust, roots: Mapping[int, str]) -> str:
    """The PEM of all trusted roots; empty while one of them isn't known."""
    if any(number not in roots for number in trust.bundle):
        return ""
    return "".join(roots[number].strip() + "\n" for number in trust.bundle)


def _advance(view: View) -> tuple[Trust, Wait]:
    """The step that the rotation is at now, and what it waits for."""
    before, target = view.observed.status.trust, view.desired.tls.generation
    if not before.generation:
        return Trust(target, (target,), SETTLED), Wait()
    if before.step == SETTLED:
        if target <= before.generation:
            return before, Wait()
        begun = Trust(before.generation, (before.generation, target), DISTRIBUTE)
        return begun, Wait(f"trusting root {target} beside root {before.generation}")
    newest = before.bundle[-1]
    if before.step == DISTRIBUTE:
        waiting = _unaware(view, before)
        if waiting is None:
            return before, Wait(f"waiting for root {newest}")
        if waiting:
            return before, Wait(f"waiting until {', '.join(waiting)} trusts root {newest}")
        return Trust(newest, before.bundle, REISSUE), Wait(f"issuing from root {newest}")
    if before.step == REISSUE:
        old = _not_reissued(view, before)
        if old:
            words = f"issuing from root {newest}: {len(old)} nodes to go ({old[0]})"
            return before, Wait(words, old[0])
        wait = waits_for_clients(view, before)
        if wait.words:
            return before, wait
        return Trust(newest, (newest,), WITHDRAW), Wait("withdrawing the old root")
    waiting = _unaware(view, before)
    if waiting is None or waiting:
        return before, Wait("waiting until no node trusts the old root")
    return Trust(newest, (newest,), SETTLED), Wait()


def _unaware(view: View, trust: Trust) -> list[str] | None:
    """The nodes that don't report the bundle yet; None where that can't be known."""
    bundle = _bundle(trust, view.observed.roots)
    if not bundle or view.registry is None:
        return None
    digest = hashlib.sha256(bundle.encode()).hexdigest()
    members = [m for m in view.registry.members if m.state is not NodeState.LEFT]
    return [m.name for m in members if not m.reachable or m.trust_hash != digest]


def _is_settled(view: View, seen: Certificate) -> bool:
    """Whether a certificate is issued, and the node uses it."""
    member = view.member(seen.index)
    if not seen.ready or member is None or member.certificate_not_after is None:
        return False
    return seen.not_after is not None and abs(member.certificate_not_after - seen.not_after) < 2


def _not_reissued(view: View, trust: Trust) -> list[str]:
    name = names.root(view.desired.name, trust.generation)
    found = []
    for index in view.places:
        seen = view.observed.certificates.get(index)
        if seen is None or seen.issuer != name or not _is_settled(view, seen):
            found.append(view.label(index))
    return found


def _leaves(view: View, trust: Trust) -> list[Manifest]:
    """Every node's certificate; while a root changes, one node changes at a time."""
    current = names.root(view.desired.name, trust.generation)
    issuer = made.issuer_of(view.desired, trust.generation)
    seen = view.observed.certificates
    on_the_way = any(
        found.issuer == current and not _is_settled(view, found)
        for index, found in seen.items()
        if index in view.places
    )
    leaves = []
    for index in view.places:
        found = seen.get(index)
        stays = trust.step == REISSUE and found is not None and found.issuer != current
        if stays and found is not None:
            if on_the_way:
                old = {**issuer, "name": found.issuer}
                leaves.append(made.node_certificate(view.desired, index, old))
                continue
            on_the_way = True
        leaves.append(made.node_certificate(view.desired, index, issuer))
    return leaves


def _clients(view: View, issuer: Mapping[str, str]) -> list[Manifest]:
    """The certificate of every client that is to have one."""
    clients = view.desired.tls.clients
    return [made.client_certificate(view.desired, client, issuer) for client in clients]


def why_not_ready(view: View) -> tuple[str, str] | None:
    """What is wrong with certificates, for the condition: reason and words; None if all is well."""
    if view.desired.tls.mode is TlsMode.SECRETS:
        return _secrets_fault(view)
    for index in view.places:
        seen = view.observed.certificates.get(index)
        if seen is None:
            return "Issuing", f"the certificate of {view.label(index)} is not asked for yet"
        if not seen.ready:
            return (
                "Issuing",
                f"the certificate of {view.label(index)}: {seen.message or 'not issued'}",
            )
        if seen.not_after is not None and seen.not_after <= view.now:
            return "Expired", f"the certificate of {view.label(index)} has expired"
    for client in view.desired.tls.clients:
        own = view.observed.own_clients.get(client.name)
        if own is None or own.issued_at is None:
            said = own.message if own else ""
            words = f"the certificate of client {client.name}: {said or 'not issued yet'}"
            return "ClientIssuing", words
    return None
