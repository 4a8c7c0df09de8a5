"""The full tier: a control plane and machines that run pods, all of it in one sandbox.

It needs root and a few Debian packages, and gives real faults: power, network, disks.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from agni_e2e import debian, forwarder
from agni_e2e.api import Api
from agni_e2e.builder import Built
from agni_e2e.control_plane import SERVICE_NETWORK, ControlPlane, Ports
from agni_e2e.machine import BRIDGE, RealMachine
from agni_e2e.machine_files import (
    BRIDGE_ADDRESS,
    BRIDGE_HARDWARE_ADDRESS,
    PAUSE_IMAGE,
    corefile,
    machine_address,
)
from agni_e2e.pki import Authority
from agni_e2e.platform import Options, Platform
from agni_e2e.processes import Processes
from agni_e2e.sandbox import Namespaces, open_sandbox
from agni_e2e.volumes import Volumes
from agni_e2e.waiting import until
from agni_images.oci import Image, Layer, write_archive

FORWARDER_TIMEOUT_S = 20.0
READY_TIMEOUT_S = 120.0


class FullPlatform(Platform):
    """Machines in a sandbox."""

    def __init__(self, options: Options, built: Built, processes: Processes) -> None:
        super().__init__(options, built, processes)
        self.volumes: Volumes | None = None
        self.real: list[RealMachine] = []
        self._sandbox: Namespaces | None = None
        self._reached: dict[tuple[str, int], tuple[str, int]] = {}

    def start(self) -> Path:
        """Sandbox, bridge, control plane, machines, names."""
        debian.ensure()
        sandbox = self._sandbox = open_sandbox(self.processes, self.built["pause"])
        make_bridge(sandbox)
        authority = Authority(self.processes.folder / "pki")
        plane = ControlPlane(
            self.processes,
            self.built,
            authority,
            ports=Ports(),
            address=BRIDGE_ADDRESS,
            audit=self.options.audit,
        )
        self.audit_log = plane.audit_log
        host, port = self.reach("127.0.0.1", plane.ports.api)

        kubeconfig = plane.start(sandbox.start, f"https://{host}:{port}")
        self._start_names(authority)
        self._start_machines(authority, plane.server(BRIDGE_ADDRESS))
        folders = {machine.name: machine.volumes for machine in self.real}
        self.volumes = Volumes(Api(kubeconfig), folders)
        self.volumes.start()
        with closing(Api(kubeconfig)) as api:
            until("all machines are Ready", lambda: self._are_ready(api), timeout_s=READY_TIMEOUT_S)
        return kubeconfig

    def close(self) -> None:
        """Ends the threads; the keeper ends the rest."""
        if self.volumes is not None:
            self.volumes.close()

    def load_image(self, archive: Path) -> None:
        """Imports it on every machine."""
        for machine in self.real:
            machine.add_image(archive)

    def reach(self, host: str, port: int) -> tuple[str, int]:
        """A port of loopback that leads to an address inside (a Service, a pod)."""
        if (host, port) not in self._reached:
            self._reached[host, port] = "127.0.0.1", self._forward(host, port)
        return self._reached[host, port]

    @property
    def sandbox(self) -> Namespaces:
        """The sandbox, for what only root inside can do."""
        if self._sandbox is None:
            raise RuntimeError("the sandbox isn't open")
        return self._sandbox

    def _forward(self, host: str, port: int) -> int:
        name = f"forward-{host}-{port}"
        port_file = self.processes.folder / f"{name}.port"
        words = ("--pid", str(self.sandbox.pid), "--to", f"{host}:{port}")
        command = (sys.executable, forwarder.__file__, *words, "--port-file", str(port_file))
        self.processes.start(name, command)

        def told() -> bool:
            self.processes.check(name)
            return port_file.exists()

        until(f"{name} listens", told, timeout_s=FORWARDER_TIMEOUT_S)
        return int(port_file.read_text())

    def _start_names(self, authority: Authority) -> None:
        path = self.processes.folder / "Corefile"
        path.write_text(corefile(authority.folder / "inner.kubeconfig"))
        self.sandbox.start("coredns", (self.built["coredns"], "-conf", str(path)))

    def _start_machines(self, authority: Authority, server: str) -> None:
        pause = self._pause_image()
        for number, (name, zone) in enumerate(self.options.machine_names().items(), 1):
            machine = RealMachine(
                name,
                number,
                zone,
                sandbox=self.sandbox,
                built=self.built,
                authority=authority,
                server=server,
            )
            machine.add_image(pause)
            machine.power_on()
            self.real.append(machine)
            self.machines[name] = machine
        # Services have addresses that only machines know; any of them leads the way.
        self.sandbox.run("ip", "route", "replace", SERVICE_NETWORK, "via", machine_address(1))

    def _pause_image(self) -> Path:
        layer = Layer()
        layer.add_file("pause", Path(self.built["pause"]).read_bytes(), mode=0o755)
        image = Image(name=PAUSE_IMAGE, layers=(layer,), entrypoint=("/pause",))
        archive = self.processes.folder / "pause.tar"
        write_archive(image, archive)
        return archive

    def _are_ready(self, api: Api) -> bool:
        for name in ("coredns", *(f"{name}-kubelet" for name in self.machines)):
            self.processes.check(name)
        nodes = api.get("/api/v1/nodes")["items"]
        ready = [
            condition
            for node in nodes
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        return len(ready) == len(self.machines)


def make_bridge(sandbox: Namespaces) -> None:
    """The network between the control plane and the machines.

    A bridge without a hardware address of its own takes the lowest of its ports': it would change
    with a machine that goes or comes, and all others would send to nobody until they ask again.
    """
    address = ("address", BRIDGE_HARDWARE_ADDRESS)
    sandbox.run("ip", "link", "add", BRIDGE, *address, "type", "bridge")
    sandbox.run("ip", "address", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE)
    sandbox.run("ip", "link", "set", BRIDGE, "up")
    sandbox.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
