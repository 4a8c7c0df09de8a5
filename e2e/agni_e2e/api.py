"""A small client of the API server: JSON over one kept connection a thread, and watches.

The platform's own parts (fake kubelets, volumes) and tests use it; what is tested has its own.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from agni_e2e.errors import ApiError, PlatformError

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
TIMEOUT_S = 30.0
WATCH_S = 240
"""How long one watch lasts; the next begins where it ended."""


def context_of(cluster: Mapping[str, str], user: Mapping[str, str]) -> ssl.SSLContext:
    """TLS with the kubeconfig's certificates."""
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]))
            pem.write(b"\n" + base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


class Api:
    """The API server that a kubeconfig's current context names, by certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
        clusters = {entry["name"]: entry["cluster"] for entry in config["clusters"]}
        users = {entry["name"]: entry["user"] for entry in config["users"]}
        current = contexts[config["current-context"]]
        cluster, user = clusters[current["cluster"]], users[current["user"]]
        self._address = urllib.parse.urlsplit(cluster["server"]).netloc
        self._context = context_of(cluster, user)
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._local = threading.local()
        self._connections: set[http.client.HTTPSConnection] = set()
        self._is_closed = False

    def interrupt(self) -> None:
        """Ends all connections, those of watches too: threads that use them see their end."""
        self._is_closed = True
        for connection in list(self._connections):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes all connections; other threads that use them must have ended."""
        self._is_closed = True
        for connection in list(self._connections):
            self._drop(connection)

    def request(
        self, method: str, path: str, body: Object | None = None, *, kind: str = "application/json"
    ) -> Object:
        """One request, repeated once when the kept connection turns out to be dead.

        Raises:
            ApiError: The server refused it.
            PlatformError: The server can't be reached.
        """
        content = None if body is None else json.dumps(body)
        headers = self._headers | {"Content-Type": kind, "Accept": "application/json"}
        for is_last in (False, True):
            try:
                connection = self._connection()
                connection.request(method, path, content, headers)
                response = connection.getresponse()
                data = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.forget_connection()
                if is_last:
                    raise PlatformError(f"the API server can't be reached: {error}") from error
            else:
                return parsed(response.status, data)
        raise AssertionError("unreachable")

    def get(self, path: str) -> Object:
        """Reads one object or list."""
        return self.request("GET", path)

    def find(self, path: str) -> Object | None:
        """Reads one object, or nothing if it isn't there."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise

    def create(self, path: str, body: Object) -> Object:
        """Makes an object."""
        return self.request("POST", path, body)

    def patch(self, path: str, body: Object) -> Object:
        """Changes an object (merge patch)."""
        return self.request("PATCH", path, body, kind=MERGE_PATCH)

    def delete(self, path: str, body: Object | None = None) -> Object:
        """Deletes an object."""
        return self.request("DELETE", path, body)

    def is_ready(self) -> bool:
        """Whether the API server says that it serves."""
        connection = self._connection()
        try:
            connection.request("GET", "/readyz", headers=self._headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self.forget_connection()
            return False
        return response.status == http.client.OK

    def watch(self, path: str, version: str) -> Iterator[Object]:
        """Events of a list since a version, until the server ends the watch.

        Raises:
            ApiError: The version is too old (status 410): list again.
        """
        query = f"watch=1&resourceVersion={version}&timeoutSeconds={WATCH_S}"
        connection = self._new_connection(timeout_s=WATCH_S + TIMEOUT_S)
        try:
            connection.request("GET", f"{path}?{query}", headers=self._headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                parsed(response.status, response.read())
            while line := response.readline():
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    raise refusal(event["object"].get("code", 500), event["object"])
                yield event
        except (OSError, json.JSONDecodeError, http.client.HTTPException):
            return
        finally:
            self._drop(connection)

    def forget_connection(self) -> None:
        """Closes this thread's connection; the next request makes a new one."""
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._drop(connection)
            self._local.connection = None

    def _connection(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._new_connection(timeout_s=TIMEOUT_S)
            self._local.connection = connection
        return connection

    def _new_connection(self, *, timeout_s: float) -> http.client.HTTPSConnection:
        if self._is_closed:
            raise PlatformError("the API client is closed")
        connection = http.client.HTTPSConnection(
            self._address, context=self._context, timeout=timeout_s
        )
        self._connections.add(connection)
        return connection

    def _drop(self, connection: http.client.HTTPSConnection) -> None:
        connection.close()
        self._connections.discard(connection)


def parsed(status: int, data: bytes) -> Object:
    """An answer's object, or the refusal that it is."""
    try:
        answer = json.loads(data or b"{}")
    except json.JSONDecodeError:
        answer = {"message": data[:200].decode(errors="replace")}
    if status >= http.client.BAD_REQUEST:
        raise refusal(status, answer)
    return dict(answer)


def refusal(status: int, answer: Object) -> ApiError:
    """Kubernetes' Status object as an error."""
    return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")))
