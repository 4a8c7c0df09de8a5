"""The operator's own certificates: one a registry, whose key is made here and never leaves.

They are asked for with a CertificateRequest, so the operator needs no right to read any Secret,
and the answer names the root that vouches for the registry. Only with Secrets of the user's own
is one Secret read, by its name.
"""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agniregistry.identity import Tls
from agniregistry_operator.kube import ApiError, Kube, path_of
from agniregistry_operator.manifests.certificates import operator_id, operator_request
from agniregistry_operator.model.desired import Desired
from agniregistry_operator.names import root
from agniregistry_operator.reading import IDENTITY_KEYS

VERSION, KIND = "cert-manager.io/v1", "CertificateRequest"
REFUSED_S = 60.0
"""Time after which is asked again for what was denied, or failed."""
TAKEN_UP_S = 120.0
"""Time in which the kubelet brings new roots to the nodes."""
RENEW_SHARE = 2
"""A certificate is asked for anew when half of its life is left: before nodes renew theirs, so that
what has become of the root is known by then."""


@dataclass
class Issued:
    """A certificate that the operator holds."""

    certificate: bytes
    key: bytes
    root: str
    renew_at: float
    ends_at: float
    former: Issued | None = None
    """What is used until nodes know the root of this one, where that is another."""
    taken_at: float = field(default_factory=time.monotonic)


@dataclass
class Pending:
    """A request under way."""

    name: str
    key: bytes


@dataclass
class Identity:
    """What the operator holds for one registry."""

    folder: Path
    issued: dict[int, Issued] = field(default_factory=dict)
    pending: dict[int, Pending] = field(default_factory=dict)
    fault: str = ""
    doubted: dict[int, float] = field(default_factory=dict)
    """When a root was last doubted, by the monotonic clock."""
    refused_at: float | None = None
    """When a request was denied or failed, by the monotonic clock."""

    def good(self, now: float) -> frozenset[int]:
        """The roots under which a certificate is good for a while."""
        return frozenset(number for number, found in self.issued.items() if now < found.renew_at)

    def doubt(self, generation: int) -> None:
        """A root was made anew: another certificate says which it is now."""
        now, found = time.monotonic(), self.issued.get(generation)
        if found and now - self.doubted.get(generation, -REFUSED_S) >= REFUSED_S:
            self.doubted[generation] = now
            found.renew_at = 0.0

    def roots(self) -> dict[int, str]:
        """The roots that were answered."""
        return {number: found.root for number, found in self.issued.items() if found.root}

    def files(self, generation: int, bundle: str) -> Tls | None:
        """Files for the SDK, which looks at them by itself; None while there is none."""
        found = self.issued.get(generation)
        if found is None or not (bundle or found.root):
            return None
        if found.former is not None and time.monotonic() - found.taken_at < TAKEN_UP_S:
            found = found.former
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _put(self.folder / "ca.crt", (bundle or found.root).encode())
        _put(self.folder / "tls.key", found.key)
        _put(self.folder / "tls.crt", found.certificate)
        return Tls(
            ca_file=str(self.folder / "ca.crt"),
            cert_file=str(self.folder / "tls.crt"),
            key_file=str(self.folder / "tls.key"),
        )

    def forget(self) -> None:
        """Deletes the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def request(
        self, kube: Kube, desired: Desired, issuer: Mapping[str, str], generation: int
    ) -> None:
        """Asks for a certificate, or looks how far that is."""
        pending = self.pending.get(generation)
        if pending is None:
            now = time.monotonic()
            if self.refused_at is None or now - self.refused_at >= REFUSED_S:
                await self._ask(kube, desired, issuer, generation)
            return
        path = path_of(VERSION, KIND, desired.namespace, pending.name)
        try:
            answer = await kube.call("GET", path)
        except ApiError as error:
            if error.is_gone:
                del self.pending[generation]
            raise
        done = self._take(generation, pending, answer)
        if done:
            del self.pending[generation]
            await kube.delete(VERSION, KIND, desired.namespace, pending.name)

    async def _ask(
        self, kube: Kube, desired: Desired, issuer: Mapping[str, str], generation: int
    ) -> None:
        """Makes the one request of this name; what an operator left that was killed goes first."""
        name = f"{root(desired.name, generation)}-operator"
        key, csr = _new_request(operator_id(desired))
        manifest = operator_request(desired, name, base64.b64encode(csr).decode(), issuer)
        path = path_of(VERSION, KIND, desired.namespace)
        try:
            await kube.call("POST", path, manifest)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            await kube.delete(VERSION, KIND, desired.namespace, name)
            await kube.call("POST", path, manifest)
        self.pending[generation] = Pending(name, key)

    def _take(self, generation: int, pending: Pending, answer: Mapping[str, Any]) -> bool:
        """Takes what was issued; says whether the request has ended."""
        status = answer.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        for kind in ("Denied", "InvalidRequest"):
            if conditions.get(kind, {}).get("status") == "True":
                return self._refuse(conditions[kind].get("message", kind))
        ready = conditions.get("Ready", {})
        if ready.get("reason") == "Failed":
            return self._refuse(ready.get("message", "the request failed"))
        if not status.get("certificate"):
            self.fault = ready.get("message", "")
            return False
        pem = base64.b64decode(status["certificate"])
        if not _belong_together(pem, pending.key):
            # Another operator has taken the lease meanwhile, and asked under the same name.
            return True
        authority = base64.b64decode(status.get("ca") or "").decode()
        former = self.issued.get(generation)
        made = _issued(pem, pending.key, authority)
        if former is not None and former.root != made.root and former.ends_at > time.time():
            former.former, made.former = None, former
        self.issued[generation] = made
        self.fault, self.refused_at = "", None
        return True

    def _refuse(self, words: str) -> bool:
        """Remembers why there is no certificate, so that nobody is asked again and again."""
        self.fault, self.refused_at = words, time.monotonic()
        return True

    async def read_secret(self, kube: Kube, desired: Desired) -> str:
        """Takes the user's own Secret; answers its roots."""
        name = desired.tls.operator_secret
        secret = await kube.get("v1", "Secret", desired.namespace, name)
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        missing = [key for key in IDENTITY_KEYS if key not in data]
        if missing:
            raise ApiError(404, "Incomplete", f"it has no {', '.join(missing)}")
        bundle = data["ca.crt"].decode()
        self.issued[0] = _issued(data["tls.crt"], data["tls.key"], bundle)
        self.issued[0].renew_at = self.issued[0].ends_at
        return bundle


def _issued(pem: bytes, key: bytes, authority: str) -> Issued:
    leaf = x509.load_pem_x509_certificate(pem)
    begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return Issued(pem, key, authority, ends - (ends - begins) / RENEW_SHARE, ends)


def is_another(pem: str, not_after: float) -> bool:
    """Whether none of some roots ends when the one does that issues now."""
    try:
        known = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return False
    return all(abs(one.not_valid_after_utc.timestamp() - not_after) > 1 for one in known)


def _belong_together(pem: bytes, key: bytes) -> bool:
    """Whether a certificate is for a key."""
    leaf = x509.load_pem_x509_certificate(pem).public_key()
    own = serialization.load_pem_private_key(key, None).public_key()
    return leaf == own


def _new_request(spiffe_id: str) -> tuple[bytes, bytes]:
    """A new key, and the request for its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([])).add_extension(names, critical=True)
    csr = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, csr.public_bytes(serialization.Encoding.PEM)


def _put(path: Path, content: bytes) -> None:
    """Puts a file in place as a whole, if it is to be different."""
    if path.exists() and path.read_bytes() == content:
        return
    beside = path.with_suffix(".new")
    beside.touch(mode=0o600)
    beside.write_bytes(content)
    beside.replace(path)
