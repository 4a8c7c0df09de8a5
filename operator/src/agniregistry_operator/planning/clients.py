"""Certificates that clients have from a root which is to go: it stays until they have others.

Those of spec.tls.clients the operator changes itself. The others belong to whoever uses them, so it
only says what to do. Certificates of clients that cert-manager doesn't keep in the registry's
namespace can't be seen, and aren't waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

from agniregistry_operator import names
from agniregistry_operator.model.observed import ClientCertificate
from agniregistry_operator.model.status import Trust
from agniregistry_operator.planning.view import View

TAKEN_UP_S = 120.0
"""Time in which the kubelet brings a new certificate to whoever uses it."""
NAMED_MAX = 3


@dataclass(frozen=True)
class Wait:
    """What a rotation waits for; without words nothing."""

    words: str = ""
    whom: str = ""
    """Whose turn it is, where that is one of several who come one after the other."""
    somebody_must_act: bool = False


def waits_for_clients(view: View, trust: Trust) -> Wait:
    """Why the old roots can't go because of clients."""
    newest = names.root(view.desired.name, trust.bundle[-1])
    older = {names.root(view.desired.name, number) for number in trust.bundle[:-1]}
    late = sorted(each.name for each in view.observed.clients if each.issuer in older)
    if late:
        some = ", ".join(late[:NAMED_MAX]) + ("…" if len(late) > NAMED_MAX else "")
        words = f"give the Certificates of clients the issuer {newest}: {some}"
        return Wait(f"waiting with the old root: {words}", somebody_must_act=True)
    users = [each for each in view.observed.clients if each.issuer == newest] + _own(view)
    for each in sorted(users, key=lambda client: client.name):
        issued_at = each.issued_at if each.issuer == newest else None
        if issued_at is None or view.now - issued_at < TAKEN_UP_S:
            words = f"waiting until {each.name} uses its certificate from root {newest}"
            return Wait(words, each.name)
    return Wait()


def _own(view: View) -> list[ClientCertificate]:
    """The certificates that the operator keeps, also those that aren't there yet."""
    registry, seen = view.desired.name, view.observed.own_clients
    wanted = [client.name for client in view.desired.tls.clients]
    return [seen.get(name) or ClientCertificate(names.client(registry, name)) for name in wanted]
