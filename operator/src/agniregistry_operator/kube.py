"""The few calls to the API server that the operator makes, on the HTTP client that Kopf has loaded.

Why not a Kubernetes client package: docs/decisions/0007. Each call is for any kind of object;
what is said is decided in `planning` and `manifests`.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from agniregistry_operator import names

TIMEOUT_S = 30.0
"""How long one call may take."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""The answer without what an object says, such as a Secret's content."""

PLURALS = {
    "AgniRegistry": names.PLURAL,
    "NetworkPolicy": "networkpolicies",
}
"""Kinds whose plural isn't the kind with an s."""


class ApiError(Exception):
    """The API server refused, or wasn't reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    @property
    def is_gone(self) -> bool:
        """Whether there is no such object."""
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """Whether the object has changed meanwhile."""
        return self.status in (409, 422) and self.reason in ("Conflict", "Invalid", "")


@dataclass
class Connection:
    """Where the API server is, and who asks."""

    server: str
    token_file: Path | None = None
    token: str = ""
    ca_file: Path | None = None
    ca_data: str = ""
    certificate_file: str = ""
    key_file: str = ""
    namespace: str = "default"
    insecure: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def authorization(self) -> dict[str, str]:
        """The header that says who asks; the kubelet renews the token's file."""
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}

    def ssl_context(self) -> ssl.SSLContext | None:
        """How the API server is trusted, and who shows a certificate."""
        if not self.server.startswith("https"):
            return None
        context = ssl.create_default_context(
            cafile=str(self.ca_file) if self.ca_file else None, cadata=self.ca_data or None
        )
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def find_connection(scratch: Path) -> Connection:
    """The pod's service account, or else the current context of a kubeconfig.

    Args:
        scratch: A folder of the operator's own for certificates that a kubeconfig carries.

    Raises:
        ValueError: There is neither.
    """
    if host := os.environ.get("KUBERNETES_SERVICE_HOST"):
        host = f"[{host}]" if ":" in host else host
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        space = ACCOUNT / "namespace"
        return Connection(
            server=f"https://{host}:{port}",
            token_file=ACCOUNT / "token",
            ca_file=ACCOUNT / "ca.crt",
            namespace=space.read_text().strip() if space.exists() else "default",
        )
    path = Path(os.environ.get("KUBECONFIG", "~/.kube/config").split(":")[0]).expanduser()
    if not path.exists():
        raise ValueError(f"neither a service account nor a kubeconfig ({path}) is there")
    return _from_kubeconfig(yaml.safe_load(path.read_text()), path.parent, scratch)


def _from_kubeconfig(config: Mapping[str, Any], folder: Path, scratch: Path) -> Connection:
    def named(kind: str, name: str) -> Mapping[str, Any]:
        entries = {entry["name"]: entry[kind] for entry in config.get(f"{kind}s") or ()}
        if name not in entries:
            raise ValueError(f"the kubeconfig has no {kind} {name!r}")
        found: Mapping[str, Any] = entries[name]
        return found

    context = named("context", config.get("current-context", ""))
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])

    def file_of(section: Mapping[str, Any], key: str) -> str:
        if data := section.get(f"{key}-data"):
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / f"kubeconfig-{key}.pem"
            path.touch(mode=0o600)
            path.write_bytes(base64.b64decode(data))
            return str(path)
        return str(folder / section[key]) if section.get(key) else ""

    ca_file = file_of(cluster, "certificate-authority")
    token_file = user.get("tokenFile")
    return Connection(
        server=cluster["server"].rstrip("/"),
        token=user.get("token", ""),
        token_file=Path(token_file) if token_file else None,
        ca_file=Path(ca_file) if ca_file else None,
        certificate_file=file_of(user, "client-certificate"),
        key_file=file_of(user, "client-key"),
        namespace=context.get("namespace", "default"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def path_of(version: str, kind: str, namespace: str, name: str = "", part: str = "") -> str:
    """The path of an object, of all of a kind (no name), or of a subresource."""
    root = "/api" if "/" not in version else "/apis"
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    space = f"/namespaces/{namespace}" if namespace else ""
    end = "".join(f"/{piece}" for piece in (name, part) if piece)
    return f"{root}/{version}{space}/{plural}{end}"


class Kube:
    """A connection to the API server; belongs to the event loop in which it was made."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            connector=aiohttp.TCPConnector(ssl=connection.ssl_context() or True, limit=16),
        )
        self.writes = 0
        """How many writes were made, but for the lease's; for the metrics."""

    async def aclose(self) -> None:
        """Ends the connection."""
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """One call.

        Raises:
            ApiError: It was refused, or nobody answered.
        """
        headers = {
            "Content-Type": content,
            "Accept": accept,
            "User-Agent": names.MANAGER,
        }
        headers |= self._connection.authorization()
        if method != "GET" and "/leases" not in path:
            self.writes += 1
        try:
            async with self._session.request(
                method, self._connection.server + path, json=body, params=query, headers=headers
            ) as answer:
                if answer.status < 400:
                    found: dict[str, Any] = await answer.json(content_type=None)
                    return found or {}
                text = await answer.text()
                raise _error_of(answer.status, text)
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise ApiError(0, "Unreachable", f"the API server: {failure}") from failure

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Applies an object on the server's side, as the operator's, over whoever changed it."""
        meta = manifest["metadata"]
        path = path_of(manifest["apiVersion"], manifest["kind"], meta["namespace"], meta["name"])
        query = {"fieldManager": names.MANAGER, "force": "true"}
        return await self.call("PATCH", path, manifest, query=query, content=APPLY)

    async def get(self, version: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        return await self.call("GET", path_of(version, kind, namespace, name))

    async def metadata(self, version: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """One object's metadata, and nothing else of it."""
        return await self.call("GET", path_of(version, kind, namespace, name), accept=METADATA)

    async def delete(
        self,
        version: str,
        kind: str,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        force: bool = False,
        orphan: bool = False,
    ) -> None:
        """Deletes an object, only if it still is the one meant; one that is gone is fine."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if force:
            options["gracePeriodSeconds"] = 0
        options["propagationPolicy"] = "Orphan" if orphan else "Background"
        try:
            await self.call("DELETE", path_of(version, kind, namespace, name), options)
        except ApiError as error:
            if not error.is_gone and not (uid and error.status == 409):
                raise

    async def write_status(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """Replaces the status, if nobody has changed the resource meanwhile."""
        meta = resource["metadata"]
        version = f"{names.GROUP}/{names.VERSION}"
        path = path_of(version, names.KIND, meta["namespace"], meta["name"], "status")
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
            {"op": "add", "path": "/status", "value": status},
        ]
        query = {"fieldManager": names.MANAGER}
        await self.call("PATCH", path, patch, query=query, content=JSON_PATCH)


def _error_of(status: int, text: str) -> ApiError:
    try:
        said = yaml.safe_load(text) if text.startswith("{") else {}
    except yaml.YAMLError:
        said = {}
    return ApiError(status, said.get("reason", ""), said.get("message") or text[:500])
