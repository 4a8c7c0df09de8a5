"""Where registries are played: operators in other processes ask, over a Unix socket."""

from __future__ import annotations

import contextlib
import pickle
import socketserver
import tempfile
import threading
from pathlib import Path
from typing import Any

from played_link import LENGTH, framed
from played_registry import Stage

from agni_e2e.api import Api
from agni_e2e.errors import PlatformError
from agniregistry.errors import AgniError


class Theatre:
    """Stages by namespace and name, for as many operators as come."""

    def __init__(self, api: Api) -> None:
        self.stages: dict[tuple[str, str], Stage] = {}
        self.errors: list[str] = []
        """What went wrong in an answer; the operator only sees that there was none."""
        self._api = api
        # The paths of sockets are short, those of test folders are not.
        self._folder = tempfile.TemporaryDirectory(prefix="agni-")
        self.socket = str(Path(self._folder.name) / "stage")
        self._server = _Server(self.socket, self)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stage(self, namespace: str, name: str) -> Stage:
        """The stage of a registry, made when it is first asked for."""
        key = (namespace, name)
        if key not in self.stages:
            self.stages[key] = Stage(self._api, namespace, name)
        return self.stages[key]

    def answer(self, epoch: int, verb: str, addresses: tuple[str, ...], *more: Any) -> Any:
        """What a registry says; whose it is, is in its nodes' addresses."""
        host = addresses[0].split(".")
        stage = self.stage(host[2], host[1].removesuffix("-nodes"))
        if verb == "look":
            return stage.look(epoch)
        try:
            stage.change(epoch, *more)
        except AgniError as refused:
            return refused
        return None

    def forget_connection(self) -> None:
        """A thread that ends keeps no connection to the API server."""
        self._api.forget_connection()

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._folder.cleanup()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: str, theatre: Theatre) -> None:
        self.theatre = theatre
        super().__init__(path, _Asked)


class _Asked(socketserver.StreamRequestHandler):
    """One operator's questions about one registry."""

    server: _Server

    def handle(self) -> None:
        # An operator that is killed leaves its connection in any state.
        with contextlib.suppress(OSError, EOFError):
            while head := self.rfile.read(LENGTH.size):
                (length,) = LENGTH.unpack(head)
                question = pickle.loads(self.rfile.read(length))
                try:
                    answer = self.server.theatre.answer(*question)
                except (PlatformError, KeyError, ValueError) as error:
                    self.server.theatre.errors.append(f"{question[1]}: {error!r}")
                    return
                self.wfile.write(framed(answer))

    def finish(self) -> None:
        self.server.theatre.forget_connection()
        with contextlib.suppress(OSError):
            super().finish()
