"""Compiles the platform's parts into the cache, each once for each content of its sources.

Go's own caches grow to gigabytes; they are in a folder of their own, which goes when all is built.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agni_e2e import places
from agni_e2e.errors import PlatformError
from agni_e2e.parts import Part, parts_of

CERT_MANAGER_MODULE = "github.com/cert-manager/cert-manager"
CERT_MANAGER_CRDS = "cert-manager-crds"
BUILD_TIMEOUT_S = 3600


class Built:
    """The programs of a tier, by the names they are called by."""

    def __init__(self, programs: dict[str, Path]) -> None:
        self.programs = programs

    def __getitem__(self, command: str) -> str:
        if command not in self.programs:
            raise PlatformError(f"{command} isn't part of this tier")
        return str(self.programs[command])


def ensure(tier: str) -> Built:
    """Builds what isn't there yet, and answers where everything is."""
    version = go_version()
    wanted = {
        part: places.binaries() / f"{part.name}-{part.key(version)}" for part in parts_of(tier)
    }
    if not all(folder.exists() for folder in wanted.values()):
        with one_builder_at_a_time():
            for part, folder in wanted.items():
                if not folder.exists():
                    build(part, folder)
            forget_go_caches()
            forget_old(wanted)
    return Built(
        {
            name: folder / name
            for part, folder in wanted.items()
            for name in (part.name, *part.commands)
        }
    )


def crds_of_cert_manager(built: Built) -> list[Path]:
    """cert-manager's CRDs, kept beside its program when that was built."""
    return sorted((Path(built["cert-manager"]).parent / CERT_MANAGER_CRDS).glob("*.yaml"))


def go_version() -> str:
    """The compiler's version; the same sources make another program with another one."""
    if shutil.which("go") is None:
        raise PlatformError("go is needed to build the platform: see https://go.dev/dl")
    done = subprocess.run(("go", "env", "GOVERSION"), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """Go's settings here; where modules come from is the machine's business."""
    folder = places.go_folder()
    flags = f"{os.environ.get('GOFLAGS', '')} -modcacherw -buildvcs=false".strip()
    return os.environ | {
        "GOMODCACHE": str(folder / "modules"),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": flags,
        "CGO_ENABLED": "0",
        # A seventh of the compiler's time, for memory that is free while it runs.
        "GOGC": os.environ.get("GOGC", "400"),
    }


def build(part: Part, folder: Path) -> None:
    """Compiles one part; its folder appears whole or not at all."""
    began = time.monotonic()
    print(f"building {part.name} ...", flush=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    module = places.SOURCES / part.module
    target = unfinished / part.name
    command = (
        "go",
        "build",
        "-trimpath",
        "-ldflags",
        part.linker_flags,
        "-o",
        str(target),
        part.package,
    )
    run_go(command, module)
    for name in part.commands:
        (unfinished / name).symlink_to(part.name)
    if part.name == "cert-manager":
        keep_crds(module, unfinished / CERT_MANAGER_CRDS)
    unfinished.rename(folder)
    size = target_size_mib(folder / part.name)
    print(f"built {part.name} in {time.monotonic() - began:.0f} s, {size} MiB", flush=True)


def run_go(command: tuple[str, ...], module: Path) -> str:
    """Runs Go in a module's folder.

    Raises:
        PlatformError: It failed; the text ends as its output did.
    """
    done = subprocess.run(
        command,
        cwd=module,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise PlatformError(f"go failed in {module.name}: {done.stderr[-2000:].strip()}")
    return done.stdout.strip()


def keep_crds(module: Path, target: Path) -> None:
    """Copies cert-manager's CRDs out of its module, which is removed after building."""
    folder = Path(run_go(("go", "list", "-m", "-f", "{{.Dir}}", CERT_MANAGER_MODULE), module))
    target.mkdir()
    for path in sorted((folder / "deploy" / "crds").glob("*.yaml")):
        shutil.copyfile(path, target / path.name)
    if not any(target.iterdir()):
        raise PlatformError(f"no CRDs in {CERT_MANAGER_MODULE}'s deploy/crds")


def target_size_mib(path: Path) -> int:
    """A file's size, for people."""
    return path.stat().st_size >> 20


@contextmanager
def one_builder_at_a_time() -> Iterator[None]:
    """Two tests that start together must not build the same thing twice."""
    places.cache().mkdir(parents=True, exist_ok=True)
    with (places.cache() / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def forget_go_caches() -> None:
    """Gives back Go's gigabytes, unless somebody who changes the parts wants to keep them."""
    if not os.environ.get("E2E_KEEP_GO"):
        shutil.rmtree(places.go_folder(), ignore_errors=True)


def forget_old(wanted: dict[Part, Path]) -> None:
    """Removes programs that were made from other sources."""
    for part, folder in wanted.items():
        for other in places.binaries().glob(f"{part.name}-*"):
            if other != folder and len(other.name) == len(folder.name):
                shutil.rmtree(other)
