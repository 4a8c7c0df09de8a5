"""Clusters that somebody else runs: kind in containers, or one that is there already.

Both want kubectl and helm of the machine; nothing is compiled but cert-manager, and that only if
the cluster hasn't got it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml

from agni_e2e.errors import PlatformError
from agni_e2e.platform import Machine, Platform, program
from agni_e2e.tools import Tools

KIND_TIMEOUT_S = 600
KIND_IMAGE = "kindest/node:v1.34.0"


class ContainerMachine(Machine):
    """A kind node: a container that docker stops, starts and disconnects."""

    def power_off(self) -> None:
        """Kills the container."""
        run(("docker", "kill", self.name))

    def power_on(self) -> None:
        """Starts it again."""
        run(("docker", "start", self.name))

    def cut(self) -> None:
        """Takes the container off its network."""
        run(("docker", "network", "disconnect", "kind", self.name))

    def heal(self) -> None:
        """Puts it back."""
        run(("docker", "network", "connect", "kind", self.name))


def run(command: tuple[str, ...]) -> str:
    """What a program prints.

    Raises:
        PlatformError: It failed; the text is what it said.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=KIND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise PlatformError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class ForeignPlatform(Platform):
    """What both have in common: the machine's own kubectl and helm."""

    def tools(self, kubeconfig: Path) -> Tools:
        """The machine's kubectl and helm."""
        why = "for E2E_CLUSTER=kind and E2E_CLUSTER=existing"
        return Tools(
            kubeconfig,
            kubectl=program("kubectl", why),
            helm=program("helm", why),
            home=self.processes.folder / "home",
        )


class KindPlatform(ForeignPlatform):
    """A cluster of containers, made for this run and deleted after it."""

    def start(self) -> Path:
        """Creates the cluster, with the zones on its workers."""
        self._kind = program("kind", "for E2E_CLUSTER=kind: see https://kind.sigs.k8s.io")
        kubeconfig = self.processes.folder / "kind.kubeconfig"
        config = self.processes.folder / "kind.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        name = ("--name", self.processes.name, "--kubeconfig", str(kubeconfig))
        image = ("--image", os.environ.get("E2E_KIND_IMAGE", KIND_IMAGE))
        run(
            (
                self._kind,
                "create",
                "cluster",
                *name,
                *image,
                "--config",
                str(config),
                "--wait",
                "5m",
            )
        )
        for number, zone in enumerate(self.options.machine_names().values(), 1):
            worker = f"{self.processes.name}-worker{'' if number == 1 else number}"
            self.machines[worker] = ContainerMachine(worker, zone)
        return kubeconfig

    def close(self) -> None:
        """Deletes the cluster."""
        run((self._kind, "delete", "cluster", "--name", self.processes.name))

    def load_image(self, archive: Path) -> None:
        """Copies the image to every node."""
        run((self._kind, "load", "image-archive", str(archive), "--name", self.processes.name))

    def _config(self) -> dict[str, object]:
        workers = [
            {"role": "worker", "labels": {"topology.kubernetes.io/zone": zone}}
            for zone in self.options.machine_names().values()
        ]
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [{"role": "control-plane"}, *workers],
        }


class ExistingPlatform(ForeignPlatform):
    """The cluster that KUBECONFIG names. It is used, never changed beyond what a test does."""

    def start(self) -> Path:
        """Checks that it can be reached."""
        named = os.environ.get("KUBECONFIG", "")
        if not named or not Path(named).is_file():
            raise PlatformError("E2E_CLUSTER=existing wants KUBECONFIG to name one file")
        kubeconfig = Path(named).resolve()
        self.tools(kubeconfig).kubectl("version")
        return kubeconfig

    def close(self) -> None:
        """Leaves it to its owner."""
