"""Debian packages that machines of the full tier run: installed when missing, and said so."""

from __future__ import annotations

import os
import shutil
import subprocess

from agni_e2e.errors import PlatformError

PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "iproute2": "ip",
}
"""Each package, and a program that shows it is there."""
TIMEOUT_S = 600


def missing() -> list[str]:
    """Packages that aren't installed."""
    return [name for name, program in PACKAGES.items() if shutil.which(program) is None]


def ensure() -> None:
    """Installs what is missing.

    Raises:
        PlatformError: Not root, not Debian, or apt-get failed.
    """
    if os.geteuid() != 0:
        raise PlatformError("the full tier needs root: it makes namespaces and cgroups")
    names = missing()
    if not names:
        return
    if shutil.which("apt-get") is None:
        raise PlatformError(f"install {', '.join(names)} first (this isn't a Debian machine)")
    print(f"installing Debian packages for the full tier: {', '.join(names)}", flush=True)
    apt_get("update")
    apt_get("install", "--yes", "--no-install-recommends", *names)
    if names := missing():
        raise PlatformError(f"{', '.join(names)}: installed, but their programs aren't there")


def apt_get(*arguments: str) -> None:
    """Runs apt-get without questions.

    Raises:
        PlatformError: It failed; the text ends as its output did.
    """
    done = subprocess.run(
        ("apt-get", "-qq", *arguments),
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise PlatformError(f"apt-get {arguments[0]}: {(done.stderr or done.stdout)[-1000:]}")
