"""The layer of Python packages: our wheels, and what they need in the versions of the lock file."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from agni_images.debian_root import PYTHON, check_libraries, compile_python, run
from agni_images.errors import ImageError
from agni_images.oci import Layer

AT = "opt/agniregistry"
"""Where the packages are in the image; PYTHONPATH names it."""
PLATFORMS = (
    *("linux_x86_64", "manylinux_2_34_x86_64", "manylinux_2_31_x86_64", "manylinux_2_28_x86_64"),
    *("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64"),
)
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
NOT_SHIPPED = ("RECORD", "direct_url.json", "INSTALLER", "REQUESTED")
"""Files of an installation that tell where it was made."""
LAUNCHER = """#!/usr/bin/{python}
import sys

from {module} import {function}

sys.exit({function}())
"""


def target_flags() -> list[str]:
    """Pip's flags for the image's interpreter, whichever runs pip."""
    version = PYTHON.removeprefix("python")
    flags = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version]
    return flags + [word for name in PLATFORMS for word in ("--platform", name)]


def locked(lock_file: Path) -> dict[str, str]:
    """Each package's lines of the lock file: its version and its hashes."""
    blocks = re.split(r"^(?=[\w.-]+==)", lock_file.read_text(), flags=re.MULTILINE)
    return {normal(block.partition("==")[0]): block for block in blocks if "==" in block}


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(wheels: list[Path], pins: dict[str, str], folder: Path) -> list[str]:
    """What our wheels need, by name, resolved with the lock file's versions."""
    versions = "\n".join(block.splitlines()[0].rstrip(" \\") for block in pins.values())
    constraints = folder / "constraints.txt"
    constraints.write_text(versions + "\n")
    report = folder / "report.json"
    command = ("install", "--dry-run", "--ignore-installed", "--report", str(report))
    target = ("--target", str(folder / "nowhere"))
    names = (str(path) for path in wheels)
    run(*PIP, *command, *target, *target_flags(), "--constraint", str(constraints), *names)
    found = [item["metadata"]["name"] for item in json.loads(report.read_text())["install"]]
    own = {normal(path.name.partition("-")[0]) for path in wheels}
    return sorted(normal(name) for name in found if normal(name) not in own)


def install(wheels: list[Path], lock_file: Path, target: Path) -> None:
    """Our wheels and what they need, below a folder; what comes from outside is checked by hash.

    Raises:
        ImageError: A package isn't in the lock file.
    """
    shutil.rmtree(target, ignore_errors=True)
    pins = locked(lock_file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = needed(wheels, pins, folder)
        if unknown := [each for each in names if each not in pins]:
            raise ImageError(f"{', '.join(unknown)}: not in {lock_file.name}, run `make lock`")
        requirements = folder / "requirements.txt"
        requirements.write_text("".join(pins[each] for each in names))
        flags = ("install", "--no-deps", "--no-compile", "--target", str(target), *target_flags())
        if names:
            run(*PIP, *flags, "--require-hashes", "--requirement", str(requirements))
        run(*PIP, *flags, *(str(path) for path in wheels))
    # Their launchers name the interpreter that ran pip.
    shutil.rmtree(target / "bin", ignore_errors=True)
    for folder in target.glob("*.dist-info"):
        for each in NOT_SHIPPED:
            (folder / each).unlink(missing_ok=True)


def launchers(target: Path, distribution: str) -> dict[str, str]:
    """The commands of one distribution, as scripts for the image's interpreter."""
    found = sorted(target.glob(f"{distribution.replace('-', '_')}-*.dist-info/entry_points.txt"))
    if not found:
        raise ImageError(f"{distribution} has no commands")
    points = configparser.ConfigParser()
    points.read(found[0])
    scripts = {}
    for name, value in points["console_scripts"].items():
        module, _, function = value.partition(":")
        scripts[name] = LAUNCHER.format(python=PYTHON, module=module, function=function)
    return scripts


def packages_layer(
    wheels: list[Path], lock_file: Path, distribution: str, *, work: Path, root: Path
) -> Layer:
    """The layer on top: packages, their byte code, and the commands of one distribution."""
    target = work / distribution
    install(wheels, lock_file, target)
    compile_python(root, target, f"/{AT}")
    check_libraries(root, target)
    layer = Layer()
    layer.add_tree(target, AT)
    for name, text in launchers(target, distribution).items():
        layer.add_file(f"usr/local/bin/{name}", text.encode(), mode=0o755)
    return layer
