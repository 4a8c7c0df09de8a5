"""From objects as the API server answers them to the values of `model.observed`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agniregistry_operator import names
from agniregistry_operator.machine import Machine, condition_of
from agniregistry_operator.manifests.node import lives_of
from agniregistry_operator.manifests.ownership import own_fields
from agniregistry_operator.model import observed as o
from agniregistry_operator.model.desired import Desired
from agniregistry_operator.model.times import parse

Plain = Mapping[str, Any]

CRASHES = "CrashLoopBackOff"
WAITING = frozenset({
    *("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"),
    *(CRASHES, "RunContainerError"),
    *("CreateContainerConfigError", "CreateContainerError"),
})  # fmt: skip
"""Reasons for which a container waits that don't go away by waiting."""
CRASHES_MIN = 2
"""Restarts after which a container that isn't ready is one that crashes."""
CRASHED_WITHIN_S = 60.0
"""How long the container ran the last time, if that was a crash at its start."""
MESSAGE_MAX = 300
"""Characters of somebody else's words that are passed on."""
SILENCE_S = 60.0
"""Time after a pod's last moment from which on its silence means that its machine is gone."""
IDENTITY_KEYS = ("tls.crt", "tls.key", "ca.crt")
"""What a Secret with a certificate must have."""
HOST_LABEL = "kubernetes.io/hostname"
HOST_KEYS = (HOST_LABEL, "metadata.name")
SELECTED_MACHINE = "volume.kubernetes.io/selected-node"


def child_of(plain: Plain, kind: str, uid: str) -> o.Child:
    """Reads any object that the operator applied."""
    meta = plain["metadata"]
    return o.Child(
        kind,
        meta["name"],
        (meta.get("annotations") or {}).get(names.ANNOTATION_HASH, ""),
        own_fields(meta.get("managedFields") or ()),
        _is_owned(plain, uid),
    )


def _index(plain: Plain) -> int | None:
    text = (plain["metadata"].get("labels") or {}).get(names.LABEL_INDEX, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _number(text: str | None) -> int:
    """A number that the operator has noted; 0 where somebody has written something else."""
    return int(text) if text and text.isascii() and text.isdigit() else 0


def stateful_sets(items: Iterable[Plain]) -> dict[int, o.StatefulSet]:
    """Reads StatefulSets."""
    found = {}
    for plain in items:
        index, notes = _index(plain), plain["metadata"].get("annotations") or {}
        if index is None:
            continue
        seeds = notes.get(names.ANNOTATION_SEEDS, "")
        claims = plain["spec"].get("volumeClaimTemplates") or [{}]
        requests = claims[0].get("spec", {}).get("resources", {}).get("requests", {})
        found[index] = o.StatefulSet(
            index=index,
            zone=notes.get(names.ANNOTATION_ZONE, ""),
            seeds=tuple(seeds.split(",")) if seeds else (),
            life=_number(notes.get(names.ANNOTATION_LIFE)),
            claim_size=requests.get("storage", ""),
            deleting=bool(plain["metadata"].get("deletionTimestamp")),
        )
    return found


def pods(
    items: Iterable[Plain],
    machines: Mapping[str, Machine] | None,
    tied: Mapping[int, str],
    now: float,
    secret_faults: Mapping[int, str] | None = None,
) -> dict[int, o.Pod]:
    """Reads pods.

    Args:
        items: The pods.
        machines: The machines by name; None where they can't be looked at.
        tied: The machine that a node's volume is tied to, where it is tied to one.
        now: The time.
        secret_faults: What is wrong with the nodes' own Secrets.
    """
    found = {}
    for plain in items:
        index = _index(plain)
        if index is None or (plain.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        meta, ready = plain["metadata"], condition_of(plain, "Ready")
        created = parse(meta.get("creationTimestamp")) or 0.0
        reason, message = _fault(plain, (secret_faults or {}).get(index, ""))
        found[index] = o.Pod(
            index=index,
            uid=meta["uid"],
            template_hash=(meta.get("annotations") or {}).get(names.ANNOTATION_TEMPLATE, ""),
            created_at=created,
            ready=ready.get("status") == "True",
            ready_changed_at=parse(ready.get("lastTransitionTime")) or created,
            deleting=bool(meta.get("deletionTimestamp")),
            machine=plain["spec"].get("nodeName", ""),
            machine_gone_since=_gone_since(plain, machines, tied.get(index, ""), now),
            fault=f"{reason}: {message}" if message else reason,
            fault_reason=reason,
        )
    return found


def _gone_since(
    plain: Plain, machines: Mapping[str, Machine] | None, tied: str, now: float
) -> float | None:
    """Since when a pod's machine, or the only one it could run on, is gone."""
    meta, ready = plain["metadata"], condition_of(plain, "Ready")
    if ready.get("status") == "True":
        return None
    if machines is None:
        # What only the pod shows: it was told to stop long ago, and nobody says that it did.
        ended = parse(meta.get("deletionTimestamp"))
        return ended if ended is not None and now - ended > SILENCE_S else None
    name = plain["spec"].get("nodeName") or tied
    if not name:
        return None
    hosts = (found for found in machines.values() if found.labels.get(HOST_LABEL) == name)
    machine = machines.get(name) or next(hosts, None)
    changed = parse(ready.get("lastTransitionTime")) or parse(meta.get("creationTimestamp")) or 0.0
    if machine is None:
        return changed
    return None if machine.ready else (machine.ready_changed_at or changed)


def tie_of(volume: Plain, selected: str) -> str:
    """The one machine that a PersistentVolume is tied to by its affinity; empty where it is not.

    The scheduler's choice (`selected`) says nothing by itself: a volume of a network goes with its
    pod. It counts where the volume's own affinity names the same machine, by whatever label.
    """
    affinity = (volume.get("spec") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("required") or {}).get("nodeSelectorTerms") or ()
    ties: set[str] = set()
    for term in terms:
        named = {
            rule["values"][0]
            for rule in (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))
            if rule.get("operator") == "In"
            and len(rule.get("values") or ()) == 1
            and (rule["key"] in HOST_KEYS or rule["values"][0] == selected)
        }
        ties.add(min(named, default=""))
    return ties.pop() if len(ties) == 1 else ""


def volumes_to_ask(pods: Iterable[Plain], claims: Iterable[Plain]) -> dict[int, tuple[str, str]]:
    """Volume and chosen machine of the nodes whose pod waits for a machine."""
    waiting = {_index(plain) for plain in pods if not plain["spec"].get("nodeName")}
    return {
        index: (volume, (plain["metadata"].get("annotations") or {}).get(SELECTED_MACHINE, ""))
        for plain in claims
        if (index := _index(plain)) is not None
        and index in waiting
        and (volume := plain["spec"].get("volumeName", ""))
    }


def _fault(plain: Plain, secret_fault: str) -> tuple[str, str]:
    """Why a pod doesn't run: a stable word, and Kubernetes' own words.

    It has none for a Secret that can't be mounted: the pod is Pending and says no more.
    """
    status = plain.get("status") or {}
    scheduled = condition_of(plain, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return "Unschedulable", _words(scheduled.get("message", ""))
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        ended = (container.get("lastState") or {}).get("terminated") or {}
        said = ended.get("message") or waiting.get("message") or ""
        if waiting.get("reason") in WAITING:
            return str(waiting["reason"]), _words(said)
        if _crashes(container, ended):
            return CRASHES, _words(said or f"exit code {ended.get('exitCode', '?')}")
    if secret_fault and status.get("phase") == "Pending":
        return o.SECRET_MISSING, secret_fault
    return "", ""


def _crashes(container: Plain, ended: Plain) -> bool:
    """Whether a container that runs, or has just ended, is between two crashes.

    Without this the word would come and go with each attempt.
    """
    begun, over = parse(ended.get("startedAt")), parse(ended.get("finishedAt"))
    if container.get("ready") or begun is None or over is None:
        return False
    return container.get("restartCount", 0) >= CRASHES_MIN and over - begun < CRASHED_WITHIN_S


def _words(text: str) -> str:
    """The last of somebody else's words, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= MESSAGE_MAX else f"…{line[-MESSAGE_MAX:]}"


def missing_keys(secret: Plain) -> list[str]:
    """The keys of an identity that a Secret lacks, told from its metadata alone.

    `managedFields` has each key beside whoever wrote it. Where the API server keeps no such record,
    none is missing as far as that can be known.
    """
    entries = secret["metadata"].get("managedFields") or ()
    parts = [
        (entry.get("fieldsV1") or {}).get(part) or {}
        for entry in entries
        for part in ("f:data", "f:stringData")
    ]
    there = {key.removeprefix("f:") for part in parts for key in part}
    return [key for key in IDENTITY_KEYS if entries and key not in there]


def claims_of(items: Iterable[Plain], desired: Desired) -> dict[int, o.Claim]:
    """Reads volume claims."""
    found = {}
    for plain in items:
        index, meta = _index(plain), plain["metadata"]
        if index is None:
            continue
        status, notes = plain.get("status") or {}, meta.get("annotations") or {}
        requests = (plain["spec"].get("resources") or {}).get("requests") or {}
        clusters = notes.get(names.ANNOTATION_CLUSTERS, "")
        found[index] = o.Claim(
            index=index,
            uid=meta["uid"],
            size=requests.get("storage", ""),
            capacity=(status.get("capacity") or {}).get("storage", ""),
            deleting=bool(meta.get("deletionTimestamp")),
            lost=status.get("phase") == "Lost",
            owned=_is_owned(plain, desired.uid),
            bound=bool(plain["spec"].get("volumeName")),
            zone=notes.get(names.ANNOTATION_ZONE),
            life=lives_of(clusters).get(desired.cluster_id, 0),
            clusters=clusters,
        )
    return found


def roots(data: Mapping[str, str], issued: Mapping[int, str]) -> dict[int, str]:
    """Roots by generation: those of the trust ConfigMap, and what issues now beside them.

    They differ when somebody has deleted a root's Secret, or it was renewed. Nodes then hold
    certificates of both, so both are trusted until the generation is replaced.
    """
    found = {number: pem for number, pem in issued.items() if number}
    for key, pem in data.items():
        number = key.removeprefix("root-").removesuffix(".crt")
        if key.startswith("root-") and number.isascii() and number.isdigit():
            new = found.get(int(number), "").strip()
            found[int(number)] = pem if new in pem else f"{pem.strip()}\n{new}\n"
    return found


def root_ends(items: Iterable[Plain], desired: Desired) -> dict[int, float]:
    """When the certificates of roots end, by cert-manager's word."""
    prefix = names.root(desired.name, 0).removesuffix("0")
    found = {}
    for plain in items:
        number = plain["metadata"]["name"].removeprefix(prefix)
        ends = parse((plain.get("status") or {}).get("notAfter"))
        is_root = plain["metadata"]["name"].startswith(prefix) and number.isascii()
        if is_root and number.isdigit() and ends is not None:
            found[int(number)] = ends
    return found


def clients(items: Iterable[Plain], uid: str) -> tuple[o.ClientCertificate, ...]:
    """Reads the certificates of a namespace that aren't the registry's own."""
    return tuple(_client(plain) for plain in items if not _is_owned(plain, uid))


def own_clients(items: Iterable[Plain], desired: Desired) -> dict[str, o.ClientCertificate]:
    """Reads the certificates that the operator keeps for clients, by the clients' names."""
    wanted = {names.client(desired.name, each.name): each.name for each in desired.tls.clients}
    return {
        wanted[name]: _client(plain)
        for plain in items
        if (name := plain["metadata"]["name"]) in wanted and _is_owned(plain, desired.uid)
    }


def _client(plain: Plain) -> o.ClientCertificate:
    name, issuer = plain["metadata"]["name"], plain["spec"]["issuerRef"]["name"]
    status = plain.get("status") or {}
    begins, ends = parse(status.get("notBefore")), parse(status.get("notAfter"))
    issued_at = begins if _is_issued(plain) else None
    return o.ClientCertificate(name, issuer, issued_at, _certificate_words(plain), ends)


def _is_owned(plain: Plain, uid: str) -> bool:
    """Whether an object goes with the registry of that identity."""
    return uid in {owner["uid"] for owner in plain["metadata"].get("ownerReferences") or ()}


def _certificate_words(plain: Plain) -> str:
    """What cert-manager says of a certificate."""
    ready, issuing = condition_of(plain, "Ready"), condition_of(plain, "Issuing")
    return _words(issuing.get("message") or ready.get("message") or "")


def _is_issued(plain: Plain) -> bool:
    """Whether a certificate is issued as it is asked for now."""
    ready, issuing = condition_of(plain, "Ready"), condition_of(plain, "Issuing")
    generation = plain["metadata"].get("generation")
    is_ready = ready.get("status") == "True"
    is_new = ready.get("observedGeneration", generation) == generation
    return is_ready and is_new and issuing.get("status") != "True"


def certificates(items: Iterable[Plain], desired: Desired) -> dict[int, o.Certificate]:
    """Reads the nodes' certificates."""
    found = {}
    for plain in items:
        meta = plain["metadata"]
        index = desired.index_of(meta["name"])
        if index is None:
            continue
        found[index] = o.Certificate(
            index=index,
            issuer=plain["spec"]["issuerRef"]["name"],
            ready=_is_issued(plain),
            not_after=parse((plain.get("status") or {}).get("notAfter")),
            message=_certificate_words(plain),
        )
    return found
