"""The quick tier: a real control plane on loopback, with machines that are only played.

It needs neither root nor anything but Go, and is there within seconds once it is built.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from agni_e2e.api import Api
from agni_e2e.builder import Built
from agni_e2e.control_plane import ControlPlane, free_ports
from agni_e2e.errors import PlatformError
from agni_e2e.fake_kubelet import FakeKubelets
from agni_e2e.pki import Authority
from agni_e2e.platform import Machine, Options, Platform
from agni_e2e.processes import Processes
from agni_e2e.volumes import Volumes

ATTEMPTS = 3
"""A port that was free may be taken a moment later by somebody else."""


class PlayedMachine(Machine):
    """A machine of the quick tier: without power and without a cable it is just silent."""

    def __init__(self, name: str, zone: str, kubelets: FakeKubelets) -> None:
        super().__init__(name, zone)
        self._kubelets = kubelets

    def power_off(self) -> None:
        """Its kubelet is silent."""
        self._kubelets.power_off(self.name)

    def power_on(self) -> None:
        """Its kubelet speaks again."""
        self._kubelets.power_on(self.name)

    def cut(self) -> None:
        """Its kubelet is silent."""
        self._kubelets.power_off(self.name)

    def heal(self) -> None:
        """Its kubelet speaks again."""
        self._kubelets.power_on(self.name)


class QuickPlatform(Platform):
    """A control plane and fake kubelets."""

    def __init__(self, options: Options, built: Built, processes: Processes) -> None:
        super().__init__(options, built, processes)
        self.kubelets: FakeKubelets | None = None
        self.volumes: Volumes | None = None

    def start(self) -> Path:
        """Starts the control plane, then plays the machines."""
        kubeconfig = self._control_plane()
        zones = self.options.machine_names()
        self.volumes = Volumes(Api(kubeconfig), {})
        self.volumes.start()
        self.kubelets = FakeKubelets(Api(kubeconfig), zones)
        self.kubelets.start()
        for name, zone in zones.items():
            self.machines[name] = PlayedMachine(name, zone, self.kubelets)
        return kubeconfig

    def close(self) -> None:
        """Ends the threads."""
        for part in (self.kubelets, self.volumes):
            if part is not None:
                part.close()

    def load_image(self, archive: Path) -> None:
        """Nobody runs images here."""
        del archive

    def _control_plane(self) -> Path:
        for attempt in range(1, ATTEMPTS + 1):
            plane = ControlPlane(
                self.processes,
                self.built,
                Authority(self.processes.folder / f"pki-{attempt}"),
                ports=free_ports(),
                audit=self.options.audit,
            )
            self.audit_log = plane.audit_log
            try:
                return plane.start(self._start, plane.server())
            except PlatformError as error:
                if "address already in use" not in str(error) or attempt == ATTEMPTS:
                    raise
                self._stop_all()
        raise AssertionError("unreachable")

    def _start(self, name: str, command: Sequence[str]) -> None:
        # Nothing of it is kept, so nothing needs to end in good order.
        self.processes.start(name, command, stop_signal=signal.SIGKILL)

    def _stop_all(self) -> None:
        for name in ("kube-apiserver", "etcd"):
            self.processes.stop(name)
