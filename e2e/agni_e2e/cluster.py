"""A cluster for tests, in one `with`: the tier and the place are chosen here and nowhere else.

`E2E_CLUSTER` picks the place: `local` (built and run here), `kind`, or `existing` (KUBECONFIG).
"""

from __future__ import annotations

import os
import signal
import types
from pathlib import Path
from typing import Any, Self

from agni_e2e import builder, cert_manager
from agni_e2e.api import Api
from agni_e2e.errors import PlatformError
from agni_e2e.fake_kubelet import FakeKubelets
from agni_e2e.foreign import ExistingPlatform, KindPlatform
from agni_e2e.platform import Machine, Options, Platform
from agni_e2e.processes import Processes, new_name
from agni_e2e.quick import QuickPlatform
from agni_e2e.tools import Tools

PLACES = ("local", "kind", "existing")
CERT_MANAGER_CRD = (
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/certificates.cert-manager.io"
)


class Cluster:
    """A Kubernetes cluster, from `with` to its end.

    Args:
        tier: `quick` (control plane; machines are played) or `full` (machines that run pods). A
            kind or existing cluster is always full.
        nodes: Machines, spread over up to three zones.
        audit: Whether the API server writes each request to `audit_log` (local clusters).
        cert_manager: Whether cert-manager runs beside it.
    """

    def __init__(
        self, tier: str = "quick", nodes: int = 3, *, audit: bool = False, cert_manager: bool = True
    ) -> None:
        self.tier = tier
        self.place = os.environ.get("E2E_CLUSTER", "local")
        self._options = Options(nodes=nodes, audit=audit, cert_manager=cert_manager)
        self._platform: Platform | None = None
        self._tools: Tools | None = None
        self._api: Api | None = None
        self._processes: Processes | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works from the caller's network."""
        return self.tools.kubeconfig

    @property
    def tools(self) -> Tools:
        """Kubectl and helm."""
        if self._tools is None:
            raise PlatformError("the cluster isn't started: use it in a with statement")
        return self._tools

    @property
    def api(self) -> Api:
        """The API server, as an administrator."""
        if self._api is None:
            raise PlatformError("the cluster isn't started: use it in a with statement")
        return self._api

    @property
    def platform(self) -> Platform:
        """Where it runs."""
        if self._platform is None:
            raise PlatformError("the cluster isn't started: use it in a with statement")
        return self._platform

    @property
    def processes(self) -> Processes:
        """Its processes, which a test may add its own to (an operator, outside the cluster)."""
        return self.platform.processes

    @property
    def machines(self) -> dict[str, Machine]:
        """Its nodes by name, with the faults they can have; empty where they aren't ours."""
        return self.platform.machines

    @property
    def kubelets(self) -> FakeKubelets:
        """How the quick tier's pods are played."""
        if not isinstance(self.platform, QuickPlatform) or self.platform.kubelets is None:
            raise PlatformError("only the quick tier's kubelets are played")
        return self.platform.kubelets

    @property
    def audit_log(self) -> Path:
        """The API server's requests, one JSON object a line."""
        if self.platform.audit_log is None:
            raise PlatformError("there is an audit log only with Cluster(audit=True), locally")
        return self.platform.audit_log

    @property
    def logs(self) -> Path:
        """The logs of its processes; they stay for a while after it."""
        return self.processes.logs

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; `PlatformError` with what it said if it fails."""
        return self.tools.kubectl(*arguments, stdin=stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, parsed."""
        return self.tools.get(*arguments)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """What helm prints; `PlatformError` with what it said if it fails."""
        return self.tools.helm(*arguments, stdin=stdin)

    def load_image(self, archive: Path) -> None:
        """Makes an image of `make images` known to every machine."""
        self.platform.load_image(archive)

    def reach(self, host: str, port: int) -> tuple[str, int]:
        """Where the caller reaches a pod or Service of the full tier."""
        return self.platform.reach(host, port)

    def close(self) -> None:
        """Ends everything; what is asked twice is done once."""
        if self._api is not None:
            self._api.close()
        platform, self._platform = self._platform, None
        processes, self._processes = self._processes, None
        try:
            if platform is not None:
                platform.close()
        finally:
            if processes is not None:
                processes.close()

    def _start(self) -> None:
        if self.place not in PLACES:
            raise PlatformError(f"E2E_CLUSTER is {self.place!r}: it must be one of {PLACES}")
        tier = self.tier if self.place == "local" else "foreign"
        kind = platform_for(self.place, tier)
        built = builder.ensure(tier)
        self._processes = Processes(new_name(tier))
        self._platform = kind(self._options, built, self._processes)
        kubeconfig = self._platform.start()
        self._tools = self._platform.tools(kubeconfig)
        self._api = Api(kubeconfig)
        for machine in self._platform.machines.values():
            machine.tools = self._tools
        if self._options.cert_manager and self._api.find(CERT_MANAGER_CRD) is None:
            cert_manager.start(self._processes, self._tools, built, kubeconfig)


def platform_for(place: str, tier: str) -> type[Platform]:
    """The class of a place and tier; what the full tier needs is imported only for it."""
    if place == "kind":
        return KindPlatform
    if place == "existing":
        return ExistingPlatform
    if tier == "full":
        from agni_e2e.full import FullPlatform

        return FullPlatform
    return QuickPlatform


def end_on_signals() -> None:
    """Makes SIGTERM end a program as Ctrl-C does, so that `with` ends the cluster."""

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        del frame
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, interrupt)
