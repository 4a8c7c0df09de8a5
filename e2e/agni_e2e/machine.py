"""A machine of the full tier: namespaces within the sandbox, with a container runtime and kubelet.

Its disk is a folder that stays while its power is off; its cable is a pair of virtual interfaces.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from agni_e2e import cgroups
from agni_e2e.builder import Built
from agni_e2e.errors import PlatformError
from agni_e2e.machine_files import (
    BRIDGE_ADDRESS,
    containerd_toml,
    kubelet_yaml,
    machine_address,
    machine_hardware_address,
    network_list,
    pod_subnet,
    proxy_yaml,
)
from agni_e2e.pki import Authority
from agni_e2e.platform import Machine
from agni_e2e.sandbox import FLAGS, Namespaces, first_process
from agni_e2e.waiting import until

RUNTIME_TIMEOUT_S = 30.0
BRIDGE = "bridge0"
CTR = ("ctr", "--namespace", "k8s.io")
PROGRAMS = ("kube-proxy", "kubelet", "containerd")

DISKS = {
    "kubelet": "/var/lib/kubelet",
    "containerd": "/var/lib/containerd",
    "cni": "/var/lib/cni",
    "log": "/var/log",
    "cni-config": "/etc/cni/net.d",
}
"""Folders of the machine's disk, and where its programs expect them."""

SETUP = """
set -e
disk=$1 pause=$2 name=$3
shift 3
hostname "$name"
mount --make-rshared /
while [ $# -gt 0 ]; do
  mkdir -p "$2"
  mount --bind "$disk/$1" "$2"
  shift 2
done
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/containerd
mount --make-rshared /
exec "$pause"
"""


class RealMachine(Machine):
    """A node of the full tier.

    Args:
        name: Of the node.
        number: From 1; its addresses are made from it.
        zone: Its failure domain.
        sandbox: Where it is.
        built: The programs.
        authority: Signs the kubelet's certificate.
        server: The API server as machines see it.
    """

    def __init__(
        self,
        name: str,
        number: int,
        zone: str,
        *,
        sandbox: Namespaces,
        built: Built,
        authority: Authority,
        server: str,
    ) -> None:
        super().__init__(name, zone)
        self.number = number
        self.address = machine_address(number)
        self.sandbox = sandbox
        self.built = built
        self.processes = sandbox.processes
        self.disk = self.processes.folder / name
        self.volumes = self.disk / "volumes"
        self.pki = authority.folder
        self.images: list[Path] = []
        self._inside: Namespaces | None = None
        pair = authority.certify(
            name,
            f"system:node:{name}",
            organization="system:nodes",
            names=(name, self.address, "127.0.0.1"),
        )
        authority.kubeconfig(name, server, pair)
        self._write_files()

    @property
    def inside(self) -> Namespaces:
        """The machine's namespaces, while its power is on."""
        if self._inside is None:
            raise RuntimeError(f"{self.name} is off")
        return self._inside

    def power_on(self) -> None:
        """Starts the machine, its network, and its programs; returns when containers can run."""
        cgroups.make(self.processes.name, self.name)
        disks = [word for pair in DISKS.items() for word in pair]
        words = ("sh", "-c", SETUP, "machine", str(self.disk), self.built["pause"], self.name)
        outer = self.sandbox.start(self.name, ("unshare", *FLAGS, *words, *disks))
        pid = first_process(self.processes, self.name, outer)
        self._inside = Namespaces(self.processes, self.name, pid)
        self._plug_in(pid)
        self._start("containerd", "containerd", "--config", str(self.disk / "containerd.toml"))
        until(
            f"{self.name}'s containerd answers", self._runtime_answers, timeout_s=RUNTIME_TIMEOUT_S
        )
        for archive in self.images:
            self.import_image(archive)
        self._start(
            "kubelet",
            self.built["kubelet"],
            f"--config={self.disk / 'kubelet.yaml'}",
            f"--kubeconfig={self.pki / self.name}.kubeconfig",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--node-labels=topology.kubernetes.io/zone={self.zone}",
        )
        self._start("kube-proxy", self.built["kube-proxy"], f"--config={self.disk / 'proxy.yaml'}")

    def power_off(self) -> None:
        """Kills the machine's first process, and with it every container at once."""
        self._inside = None
        self.processes.stop(self.name)
        for name in PROGRAMS:
            self.processes.stop(f"{self.name}-{name}")

    def cut(self) -> None:
        """Takes the cable out."""
        self.sandbox.run("ip", "link", "set", self._cable, "down")

    def heal(self) -> None:
        """Plugs the cable in."""
        self.sandbox.run("ip", "link", "set", self._cable, "up")
        self._route()

    def commands(self) -> list[str]:
        """The command lines of everything that runs on it, as its own root sees them."""
        found = []
        for path in self._proc.glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return found

    def process_of(self, pod: str) -> int:
        """The number that the machine gives to the first process of a pod's container.

        Raises:
            PlatformError: None runs here.
        """
        mark = f"HOSTNAME={pod}".encode()
        found = []
        for path in self._proc.glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        if not found:
            raise PlatformError(f"no process of {pod} runs on {self.name}")
        return min(found)

    def kill_pod(self, pod: str) -> None:
        """Kills the first process of a pod's container at once (SIGKILL)."""
        self.inside.run("sh", "-c", f"kill -9 {self.process_of(pod)}")

    def cpu_s(self, pod: str) -> float:
        """CPU time that the first process of a pod's container has used."""
        _, _, fields = self._read(pod, "stat").rpartition(") ")
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self, pod: str) -> int:
        """Memory that the same process has resident."""
        return int(self._read(pod, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _read(self, pod: str, name: str) -> str:
        return (self._proc / str(self.process_of(pod)) / name).read_text()

    @property
    def _proc(self) -> Path:
        """The machine's own view of its processes."""
        return Path(f"/proc/{self.inside.pid}/root/proc")

    def add_image(self, archive: Path) -> None:
        """Imports an image now, and again should the disk have lost it."""
        self.images.append(archive)
        if self._inside is not None:
            self.import_image(archive)

    def import_image(self, archive: Path) -> None:
        """Gives an OCI archive to the container runtime."""
        self.inside.run(*CTR, "images", "import", str(archive))

    @property
    def _cable(self) -> str:
        return f"cable{self.number}"

    def _start(self, name: str, *words: str) -> None:
        self.inside.start(f"{self.name}-{name}", words)

    def _runtime_answers(self) -> bool:
        self.processes.check(f"{self.name}-containerd")
        return (Path(f"/proc/{self.inside.pid}/root/run/containerd/containerd.sock")).exists()

    def _plug_in(self, pid: int) -> None:
        """Network: a cable into the bridge, and the way to its pods."""
        card = ("address", machine_hardware_address(self.number))
        far_end = ("peer", "name", "eth0", *card, "netns", str(pid))
        self.sandbox.run_in_network("ip", "link", "add", self._cable, "type", "veth", *far_end)
        self.sandbox.run("ip", "link", "set", self._cable, "master", BRIDGE, "up")
        inside = self.inside
        inside.run("ip", "link", "set", "lo", "up")
        inside.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        inside.run("ip", "link", "set", "eth0", "up")
        inside.run("ip", "route", "add", "default", "via", BRIDGE_ADDRESS)
        inside.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")
        self._route()

    def _route(self) -> None:
        subnet = pod_subnet(self.number)
        self.sandbox.run("ip", "route", "replace", subnet, "via", self.address)

    def _write_files(self) -> None:
        for name in DISKS:
            (self.disk / name).mkdir(parents=True)
        self.volumes.mkdir()
        resolv_conf = self.disk / "resolv.conf"
        kubelet = kubelet_yaml(
            pki=self.pki,
            name=self.name,
            cgroup=f"/{self.processes.name}/{self.name}",
            resolv_conf=resolv_conf,
        )
        files = {
            resolv_conf: f"nameserver {BRIDGE_ADDRESS}\n",
            self.disk / "containerd.toml": containerd_toml(),
            self.disk / "kubelet.yaml": kubelet,
            self.disk / "proxy.yaml": proxy_yaml(pki=self.pki, name=self.name),
            self.disk / "cni-config" / "10-pods.conflist": network_list(self.number),
        }
        for path, content in files.items():
            path.write_text(content)
