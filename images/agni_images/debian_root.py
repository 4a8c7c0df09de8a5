"""The lowest layer: Python from Debian's own packages, unpacked without their scripts.

There is no shell and no package manager in it, but a list of what it holds, where image scanners
look for one.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from agni_images.errors import ImageError
from agni_images.oci import Layer

RELEASE = "bookworm"
PYTHON = "python3.11"
PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libssl3", "libffi8", "libexpat1", "libuuid1"),
    *("libbz2-1.0", "liblzma5", "libsqlite3-0"),
    *("libpython3.11-minimal", "python3.11-minimal", "libpython3.11-stdlib"),
    *("ca-certificates", "base-files", "netbase", "tzdata", "media-types"),
)
UNUSED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"),
    *("usr/share/lintian", "usr/share/binfmts", "usr/share/perl5"),
    *("usr/lib/python3.11/lib2to3", "usr/lib/python3.11/pydoc_data"),
)
CERTIFICATES = "usr/share/ca-certificates"
USER_ID = 65532
USERS = f"""root:x:0:0:root:/root:/sbin/nologin
nonroot:x:{USER_ID}:{USER_ID}:nonroot:/nonexistent:/sbin/nologin
"""
GROUPS = f"root:x:0:\nnonroot:x:{USER_ID}:\n"
TIMEOUT_S = 600


def run(*command: str, folder: Path | None = None) -> str:
    """What a program prints.

    Raises:
        ImageError: It failed; the text is what it said.
    """
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command[:3])}: {(done.stderr or done.stdout)[-1500:].strip()}")
    return done.stdout


def check_release() -> None:
    """Packages are taken as this machine's apt knows them, so it must be the right Debian."""
    release = Path("/etc/os-release")
    if not release.exists() or f"VERSION_CODENAME={RELEASE}" not in release.read_text():
        raise ImageError(
            f"`make images` wants Debian 12 ({RELEASE}): use the Dockerfiles elsewhere"
        )


def download(folder: Path) -> list[Path]:
    """The packages' files, in the order of their names."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if any(not run("apt-cache", "madison", name).strip() for name in PACKAGES[:1]):
        run("apt-get", "update", "-qq")
    # apt's own user can't write here; as root it needn't become that user.
    run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *PACKAGES, folder=folder)
    found = sorted(folder.glob("*.deb"))
    if len(found) != len(PACKAGES):
        raise ImageError(f"{len(PACKAGES)} packages asked for, {len(found)} downloaded")
    return found


def unpack(packages: list[Path], root: Path) -> None:
    """Packages as one tree, with what their scripts would have made of it."""
    shutil.rmtree(root, ignore_errors=True)
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in packages:
        run("dpkg-deb", "--extract", str(package), str(root))
        fields = run("dpkg-deb", "--field", str(package))
        (status / package.name.partition("_")[0]).write_text(fields)
    for name in UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    roots = sorted((root / CERTIFICATES).rglob("*.crt"))
    bundle.write_bytes(b"".join(path.read_bytes() for path in roots))
    (root / "usr/bin/python3").unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to(PYTHON)
    (root / "etc/passwd").write_text(USERS)
    (root / "etc/group").write_text(GROUPS)


def loader(root: Path) -> tuple[str, ...]:
    """The root's own loader, which looks for libraries in the root first."""
    folders = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
    libraries = ":".join(str(root / name) for name in folders)
    return (str(root / "lib64/ld-linux-x86-64.so.2"), "--library-path", libraries)


def check_libraries(root: Path, folder: Path) -> None:
    """Looks whether compiled modules find all their libraries in the image.

    Raises:
        ImageError: One would be found on this machine only, or nowhere.
    """
    for module in sorted(folder.rglob("*.so*")):
        for line in run(*loader(root), "--list", str(module)).splitlines():
            name, arrow, found = line.strip().partition(" => ")
            path = found.partition(" (")[0]
            is_inside = any(Path(path).is_relative_to(each) for each in (root, folder))
            if arrow and not is_inside:
                raise ImageError(f"{module.name} needs {name}, which the image doesn't have")


def compile_python(root: Path, folder: Path, at: str) -> None:
    """Byte code beside the sources, for a file system that can't be written later.

    It is compiled by the root's own interpreter, and is valid whatever the files' times are.

    Args:
        root: The unpacked packages.
        folder: What is compiled.
        at: Where the image has that folder.
    """
    python = ("env", "-i", f"PYTHONHOME={root}/usr", "PYTHONHASHSEED=0", *loader(root))
    interpreter = (*python, str(root / "usr/bin" / PYTHON))
    flags = ("-q", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", at)
    run(*interpreter, "-m", "compileall", *flags, str(folder))


def base_layer(work: Path) -> tuple[Layer, Path]:
    """The layer that all images share, and the unpacked tree it was made from."""
    check_release()
    root = work / "root"
    unpack(download(work / "packages"), root)
    compile_python(root, root / "usr/lib/python3.11", "/usr/lib/python3.11")
    layer = Layer()
    layer.add_tree(root)
    layer.add_folder("tmp", mode=0o1777)
    return layer, root
