"""What every way of having a cluster has in common: machines, a kubeconfig, an end."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from agni_e2e.builder import Built
from agni_e2e.errors import PlatformError
from agni_e2e.processes import Processes
from agni_e2e.tools import Tools

DRAIN_TIMEOUT = "120s"


@dataclass(frozen=True)
class Options:
    """What a test asks for."""

    nodes: int = 3
    audit: bool = False
    """Whether the API server writes each request to `Cluster.audit_log`."""
    cert_manager: bool = True

    def machine_names(self) -> dict[str, str]:
        """Each machine's zone: as many zones as machines, up to three."""
        return {f"machine-{i + 1}": f"zone-{i % 3 + 1}" for i in range(self.nodes)}


class Machine(ABC):
    """One Kubernetes node, and the faults it can have."""

    def __init__(self, name: str, zone: str) -> None:
        self.name = name
        self.zone = zone
        self.tools: Tools | None = None

    @abstractmethod
    def power_off(self) -> None:
        """Everything on it is dead at once; what is on its disk stays."""

    @abstractmethod
    def power_on(self) -> None:
        """Starts it again on the same disk."""

    @abstractmethod
    def cut(self) -> None:
        """Pulls its network cable; its processes live on behind it."""

    @abstractmethod
    def heal(self) -> None:
        """Plugs the cable in again."""

    def drain(self, timeout: str = DRAIN_TIMEOUT) -> str:
        """Evicts its pods, as budgets allow; `PlatformError` if they don't within the time."""
        flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--force")
        return self._kubectl("drain", self.name, *flags, f"--timeout={timeout}")

    def uncordon(self) -> str:
        """Lets pods come back after `drain`."""
        return self._kubectl("uncordon", self.name)

    def _kubectl(self, *arguments: str) -> str:
        if self.tools is None:
            raise PlatformError("the cluster isn't started")
        return self.tools.kubectl(*arguments)


class Platform(ABC):
    """One way of having a cluster.

    Args:
        options: What the test asks for.
        built: The programs that this way needs.
        processes: Keeps its processes, and cleans up after them.
    """

    def __init__(self, options: Options, built: Built, processes: Processes) -> None:
        self.options = options
        self.built = built
        self.processes = processes
        self.machines: dict[str, Machine] = {}
        self.audit_log: Path | None = None

    @abstractmethod
    def start(self) -> Path:
        """Has the cluster; answers the administrator's kubeconfig."""

    @abstractmethod
    def close(self) -> None:
        """Ends what this started and the keeper doesn't know of."""

    def load_image(self, archive: Path) -> None:
        """Makes an image (OCI archive) known to every machine."""
        raise PlatformError(f"this cluster takes no image archives ({archive.name})")

    def reach(self, host: str, port: int) -> tuple[str, int]:
        """Where the caller reaches an address of the cluster's network."""
        raise PlatformError(f"nothing leads from here to {host}:{port}")

    def tools(self, kubeconfig: Path) -> Tools:
        """Kubectl and helm for this cluster."""
        return Tools(
            kubeconfig,
            kubectl=self.built["kubectl"],
            helm=self.built["helm"],
            home=self.processes.folder / "home",
        )


def program(name: str, why: str) -> str:
    """A program of this machine.

    Raises:
        PlatformError: It isn't installed.
    """
    found = shutil.which(name)
    if found is None:
        raise PlatformError(f"{name} is needed {why}")
    return found
