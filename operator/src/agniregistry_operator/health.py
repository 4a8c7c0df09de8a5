"""A small HTTP server for probes and Prometheus: whether the operator lives, and its metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from agniregistry_operator.metrics import Metrics


class Health:
    """Serves /healthz (503 while something stalls), /readyz and /metrics."""

    def __init__(self, metrics: Metrics, faults: Callable[[], list[str]]) -> None:
        self._metrics, self._faults = metrics, faults
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listens; port 0 lets the system choose, and `port` says which it was."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._measured)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listens no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        faults = self._faults()
        return web.Response(status=503 if faults else 200, text="\n".join(faults) or "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        """A replica that waits for the lease is ready, too: it can take over."""
        return web.Response(text="ok")

    async def _measured(self, _: web.Request) -> web.Response:
        self._faults()
        return web.Response(body=self._metrics.text(), content_type="text/plain")
