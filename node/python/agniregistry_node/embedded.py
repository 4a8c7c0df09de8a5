"""A whole registry inside a Python program, for tests of code that uses one.

    from agniregistry import Client
    from agniregistry_node import Node

    with Node() as node, Client(node.address) as client:
        ...

It is the same engine as the process has, with the same log on disk: nothing is faked.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from agniregistry_node.config import MIB, NodeConfig
from agniregistry_node.errors import AgniNodeError
from agniregistry_node.lock import DataDirLock

# A node beside a test: short files, and silent unless something is wrong.
EMBEDDED_SETTINGS: dict[str, Any] = {
    "log_level": "warn",
    "wal_segment_bytes": 2 * MIB,
    "snapshot_wal_bytes": 16 * MIB,
    "disk_reserve_bytes": 0,
}


class Node:
    """A node that runs between `start` and `stop`, or for the length of a `with` block.

    Args:
        data_dir: Its folder, kept afterwards; None makes one that is removed again.
        listen: host:port; port 0 lets the system choose.
        tls_dir: Folder of its TLS files, such as that of `agniregistry.identity.DevCa` or of a
            Kubernetes secret; None speaks no TLS.
        settings: Any other field of `NodeConfig`.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        listen: str = "127.0.0.1:0",
        tls_dir: str | Path | None = None,
        **settings: str | int | bool,
    ) -> None:
        self._data_dir = data_dir
        self._settings = {**EMBEDDED_SETTINGS, "listen": listen, **settings}
        if tls_dir is not None:
            self._settings["tls_dir"] = str(tls_dir)
        self._held: ExitStack | None = None
        self._server: Any = None
        self._address = ""

    def start(self) -> Self:
        """Recovers the folder and serves it.

        Raises:
            AgniNodeError: With a stable code and what to do.
        """
        if self._server is not None:
            raise AgniNodeError("RUNNING", "this node runs already; stop it first")
        # Late, so that settings can be checked and documented without the compiled module.
        from agniregistry_node._bridge import Server

        with ExitStack() as stack:
            folder = self._data_dir
            if folder is None:
                folder = stack.enter_context(TemporaryDirectory(prefix="agni-node-"))
            config = NodeConfig(**{**self._settings, "data_dir": str(folder)})
            config.validate()
            stack.enter_context(DataDirLock(folder))
            server = Server.start(config)
            stack.callback(server.stop)
            self._server, self._address = server, server.local_address()
            self._held = stack.pop_all()
        return self

    def stop(self) -> None:
        """Ends it; what was answered is durable. Safe to repeat."""
        held, self._held, self._server = self._held, None, None
        if held is not None:
            held.close()

    @property
    def address(self) -> str:
        """host:port where it listens (or did), for `Client` and for HTTP."""
        return self._address

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return self._server is not None and bool(self._server.ready())

    def status(self) -> dict[str, Any]:
        """What ClusterService.Status answers.

        Raises:
            AgniNodeError: STOPPED, unless it runs.
        """
        if self._server is None:
            raise AgniNodeError("STOPPED", "this node doesn't run; start it first")
        answer: dict[str, Any] = json.loads(self._server.status_json())
        return answer

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
