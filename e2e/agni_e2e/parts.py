"""What the platform is compiled from: a table of parts, and a key for the content of each.

The key is a hash of all that decides what the compiler writes, so a part is built once for each
content of its sources and never again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from agni_e2e import places
from agni_e2e.errors import PlatformError

KUBERNETES_VERSION = "v1.34.4"
HELM_VERSION = "v3.22.0"
STRIP = "-s -w"


def kubernetes_flags() -> str:
    """Linker flags without which Kubernetes says it is v0.0.0, and charts refuse it."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "local",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [
        f"-X {package}.{key}={value}" for package in packages for key, value in values.items()
    ]
    return " ".join([STRIP, *settings])


@dataclass(frozen=True)
class Part:
    """One program: its module's folder below e2e/cluster, and what of it is compiled."""

    name: str
    module: str
    package: str = "."
    linker_flags: str = STRIP
    commands: tuple[str, ...] = ()
    """Names it is called by, made as symbolic links beside it."""

    def sources(self) -> list[Path]:
        """The files that decide what is compiled, in a fixed order."""
        folder = places.SOURCES / self.module
        inner = folder / self.package if self.package.startswith("./") else folder
        return sorted(
            {folder / "go.mod", folder / "go.sum", *inner.glob("*.go")} & existing(folder)
        )

    def key(self, go_version: str) -> str:
        """Same key, same program: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for word in (go_version, self.package, self.linker_flags, *self.commands):
            digest.update(word.encode() + b"\0")
        for path in self.sources():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()[:16]


def existing(folder: Path) -> set[Path]:
    """All files at and below a folder (a module without dependencies has no go.sum)."""
    return {path for path in folder.rglob("*") if path.is_file()}


PARTS = (
    Part("pause", "pause"),
    Part("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Part(
        "kubernetes-control",
        "kubernetes",
        "./control",
        kubernetes_flags(),
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"),
    ),
    Part(
        "kubernetes-machine",
        "kubernetes",
        "./machine",
        kubernetes_flags(),
        ("kubelet", "kube-proxy"),
    ),
    Part("coredns", "coredns"),
    Part(
        "helm",
        "helm",
        "helm.sh/helm/v3/cmd/helm",
        f"{STRIP} -X helm.sh/helm/v3/internal/version.version={HELM_VERSION}",
    ),
    Part("cert-manager", "certmanager"),
)
FOREIGN = ("cert-manager",)
"""What a cluster that somebody else runs may lack."""
QUICK = ("etcd", "kubernetes-control", "helm", "cert-manager")
FULL = ("pause", *QUICK, "kubernetes-machine", "coredns")
TIERS = {"foreign": FOREIGN, "quick": QUICK, "full": FULL}


def parts_of(tier: str) -> list[Part]:
    """The parts that a tier needs, in the order they are built (one Kubernetes after the other)."""
    if tier not in TIERS:
        raise PlatformError(f"tier is {tier!r}: it must be one of {', '.join(TIERS)}")
    return [part for part in PARTS if part.name in TIERS[tier]]
