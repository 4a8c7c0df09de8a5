"""etcd, API server, controllers, scheduler: their command lines, their order, their readiness."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import yaml

from agni_e2e.api import Api
from agni_e2e.builder import Built
from agni_e2e.errors import PlatformError
from agni_e2e.pki import API_SERVER_NAMES, MASTERS, Authority
from agni_e2e.processes import Processes
from agni_e2e.waiting import until

SERVICE_NETWORK = "10.96.0.0/16"
NODE_GRACE = "16s"
"""How long a machine may be silent before it is NotReady; 40 s would only make tests longer."""
READY_TIMEOUT_S = 90.0
LOOPBACK = "127.0.0.1"

Start = Callable[[str, Sequence[str]], object]
"""Starts a program under a name, wherever the control plane is to run."""
AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


@dataclass(frozen=True)
class Ports:
    """Where the control plane listens."""

    api: int = 6443
    etcd_clients: int = 2379
    etcd_peers: int = 2380


def free_ports() -> Ports:
    """Ports of loopback that nobody has now, for control planes beside each other."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return Ports(*(each.getsockname()[1] for each in sockets))


class ControlPlane:
    """A control plane's processes.

    Args:
        processes: Who keeps them.
        built: The programs.
        authority: Signs its certificates.
        ports: Where it listens.
        address: Where machines reach it; loopback where there are no machines.
        audit: Whether each request is written to `audit_log`.
    """

    def __init__(
        self,
        processes: Processes,
        built: Built,
        authority: Authority,
        *,
        ports: Ports,
        address: str = LOOPBACK,
        audit: bool = False,
    ) -> None:
        self.processes = processes
        self.built = built
        self.authority = authority
        self.ports = ports
        self.address = address
        self.audit_log = processes.logs / "audit.jsonl" if audit else None

    def server(self, address: str = LOOPBACK) -> str:
        """The API server's address as seen from there."""
        return f"https://{address}:{self.ports.api}"

    def start(self, start: Start, reached_at: str) -> Path:
        """Starts everything; answers the administrator's kubeconfig.

        Args:
            start: Starts one program where the control plane is to run.
            reached_at: The API server's address for the caller.
        """
        admin = self._certify(reached_at)
        start("etcd", self._etcd())
        start("kube-apiserver", self._api_server())
        with closing(Api(admin)) as api:
            self._until("the API server is ready", api.is_ready, "kube-apiserver", "etcd")
            start("kube-controller-manager", self._controllers())
            start("kube-scheduler", self._scheduler())
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            controllers = "kube-controller-manager"
            self._until("the controllers work", lambda: api.find(account), controllers)
        self.processes.check("kube-scheduler")
        return admin

    def _until(self, what: str, condition: Callable[[], object], *names: str) -> None:
        def checked() -> object:
            for name in names:
                self.processes.check(name)
            return condition()

        try:
            until(what, checked, timeout_s=READY_TIMEOUT_S)
        except PlatformError as error:
            tail = self.processes.tail(names[0])
            raise PlatformError(f"{error}; the end of {names[0]}'s log:\n{tail}") from error

    def _certify(self, reached_at: str) -> Path:
        authority = self.authority
        authority.certify("apiserver", "kube-apiserver", names=(*API_SERVER_NAMES, self.address))
        authority.certify("apiserver-kubelet", "kube-apiserver-kubelet", organization=MASTERS)
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            address = self.address if name == "kube-proxy" else LOOPBACK
            pair = authority.certify(name, f"system:{name}")
            authority.kubeconfig(name, self.server(address), pair)
        admin = authority.certify("admin", "admin", organization=MASTERS)
        authority.kubeconfig("inner", self.server(), admin)
        return authority.kubeconfig("admin", reached_at, admin)

    def _etcd(self) -> list[str]:
        clients = f"http://{LOOPBACK}:{self.ports.etcd_clients}"
        peers = f"http://{LOOPBACK}:{self.ports.etcd_peers}"
        return [
            self.built["etcd"],
            f"--data-dir={self.processes.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--logger=zap",
            "--log-level=warn",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ]

    def _api_server(self) -> list[str]:
        folder = self.authority.folder
        is_alone = self.address == LOOPBACK
        flags = {
            "etcd-servers": f"http://{LOOPBACK}:{self.ports.etcd_clients}",
            "bind-address": LOOPBACK if is_alone else "0.0.0.0",
            "secure-port": self.ports.api,
            "advertise-address": self.address,
            # Loopback can't be an endpoint: Service kubernetes has none where nobody needs it.
            "endpoint-reconciler-type": "none" if is_alone else "lease",
            "service-cluster-ip-range": SERVICE_NETWORK,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "client-ca-file": folder / "ca.crt",
            "tls-cert-file": folder / "apiserver.crt",
            "tls-private-key-file": folder / "apiserver.key",
            "kubelet-client-certificate": folder / "apiserver-kubelet.crt",
            "kubelet-client-key": folder / "apiserver-kubelet.key",
            "kubelet-certificate-authority": folder / "ca.crt",
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": folder / "accounts.pub",
            "service-account-signing-key-file": folder / "accounts.key",
            "allow-privileged": "true",
        }
        if self.audit_log is not None:
            policy = self.processes.folder / "audit-policy.yaml"
            policy.write_text(yaml.safe_dump(AUDIT_POLICY))
            flags |= {"audit-policy-file": policy, "audit-log-path": self.audit_log}
        return [self.built["kube-apiserver"], *(f"--{key}={value}" for key, value in flags.items())]

    def _controllers(self) -> list[str]:
        folder = self.authority.folder
        flags = {
            "kubeconfig": folder / "kube-controller-manager.kubeconfig",
            "service-account-private-key-file": folder / "accounts.key",
            "root-ca-file": folder / "ca.crt",
            "cluster-signing-cert-file": folder / "ca.crt",
            "cluster-signing-key-file": folder / "ca.key",
            "use-service-account-credentials": "true",
            "leader-elect": "false",
            "node-monitor-grace-period": NODE_GRACE,
            # Nobody asks its own port, so it has none that could clash.
            "secure-port": 0,
        }
        command = self.built["kube-controller-manager"]
        return [command, *(f"--{key}={value}" for key, value in flags.items())]

    def _scheduler(self) -> list[str]:
        kubeconfig = self.authority.folder / "kube-scheduler.kubeconfig"
        return [
            self.built["kube-scheduler"],
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
        ]
