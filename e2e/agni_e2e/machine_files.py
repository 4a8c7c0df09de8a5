"""The files that the programs of a machine read: container runtime, network, kubelet, proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

POD_NETWORK = "10.244.0.0/16"
PAUSE_IMAGE = "agni-e2e.local/pause:1"
BRIDGE_ADDRESS = "10.88.0.1"
"""The control plane and the name server, as machines see them."""
BRIDGE_HARDWARE_ADDRESS = "02:00:0a:58:00:01"
UNUSED_PLUGINS = (
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")),
    "io.containerd.internal.v1.opt",
)


def containerd_toml() -> str:
    """The runtime's settings: overlayfs, plain cgroups, no apparmor, nothing above its rights."""
    plugins = ", ".join(f'"{name}"' for name in UNUSED_PLUGINS)
    runc = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc'
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [{plugins}]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [{runc}]
      runtime_type = "io.containerd.runc.v2"
      [{runc}.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"""


def network_list(number: int) -> str:
    """CNI: a bridge of the machine's own. Addresses are kept in memory: a machine whose power was
    cut must not come back believing that its dead pods still have theirs.
    """
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni-ipam",
            "ranges": [[{"subnet": pod_subnet(number)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, portmap]})


def pod_subnet(number: int) -> str:
    """The addresses of a machine's pods."""
    return f"10.244.{number}.0/24"


def machine_address(number: int) -> str:
    """A machine's own address."""
    return f"10.88.0.{10 + number}"


def machine_hardware_address(number: int) -> str:
    """That of a machine's network card: the same whenever its power comes back."""
    return f"02:00:0a:58:01:{number:02x}"


def kubelet_yaml(*, pki: Path, name: str, cgroup: str, resolv_conf: Path) -> str:
    """The kubelet's settings: quick to report, content with a small disk and with cgroup v1."""
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{name}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{name}.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [BRIDGE_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolv_conf),
        "maxPods": 60,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "enforceNodeAllocatable": ["pods"],
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "4s",
        "featureGates": {"KubeletInUserNamespace": True},
    }
    return yaml.safe_dump(config)


def proxy_yaml(*, pki: Path, name: str) -> str:
    """kube-proxy's settings; the machine's connection tracking stays as it is."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(pki / "kube-proxy.kubeconfig")},
        "mode": "iptables",
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": name,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return yaml.safe_dump(config)


def corefile(kubeconfig: Path) -> str:
    """CoreDNS' settings: the cluster's names, and nothing beyond."""
    return f""".:53 {{
    bind {BRIDGE_ADDRESS}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""
