"""`python -m agni_images node operator`: writes build/images/NAME.tar for each.

The wheels come from `--wheels`; `make images` builds them first.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from agni_images.debian_root import USER_ID, base_layer
from agni_images.errors import ImageError
from agni_images.names import REGISTRY, REPOSITORY, image_name, version
from agni_images.oci import Image, Layer, write_archive
from agni_images.wheels import AT, packages_layer


@dataclass(frozen=True)
class Recipe:
    """One image: which distributions are in it, what it runs, where it may write."""

    distribution: str
    wheels: tuple[str, ...]
    command: str
    folders: tuple[str, ...]


RECIPES = {
    "node": Recipe(
        "agniregistry-node", ("agniregistry_node",), "agni-node", ("var/lib/agniregistry",)
    ),
    "operator": Recipe(
        "agniregistry-operator",
        ("agniregistry", "agniregistry_operator"),
        "agni-operator",
        ("run/agniregistry",),
    ),
}


def wheel(folder: Path, distribution: str) -> Path:
    """The wheel of a distribution.

    Raises:
        ImageError: There is none, or more than one.
    """
    found = sorted(folder.glob(f"{distribution}-*.whl"))
    if len(found) != 1:
        raise ImageError(f"{len(found)} wheels of {distribution} in {folder}: run `make images`")
    return found[0]


def environment() -> dict[str, str]:
    """Python finds the packages, and writes lines at once and no byte code."""
    return {
        "PYTHONPATH": f"/{AT}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    }


def make(name: str, base: Layer, root: Path, arguments: argparse.Namespace) -> None:
    """Writes one image."""
    recipe = RECIPES[name]
    wheels = [wheel(arguments.wheels, each) for each in recipe.wheels]
    lock_file = REPOSITORY / "requirements" / "dev.txt"
    packages = packages_layer(
        wheels, lock_file, recipe.distribution, work=arguments.work, root=root
    )
    for folder in recipe.folders:
        packages.add_folder(folder, owner=USER_ID)
    image = Image(
        name=image_name(recipe.distribution, arguments.registry, arguments.tag),
        layers=(base, packages),
        entrypoint=(recipe.command,),
        user=f"{USER_ID}:{USER_ID}",
        environment=environment(),
        labels={
            "org.opencontainers.image.title": recipe.distribution,
            "org.opencontainers.image.version": version(),
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    )
    target = arguments.out / f"{name}.tar"
    digest = write_archive(image, target)
    print(f"{image.name} {digest} {target.stat().st_size >> 20} MiB {target}", flush=True)


def main() -> int:
    """Writes the images that were asked for."""
    parser = argparse.ArgumentParser(prog="agni_images", description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES), metavar="node|operator")
    parser.add_argument("--wheels", type=Path, required=True, help="the folder of our wheels")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "images")
    parser.add_argument("--registry", default=REGISTRY, help="what the images' names begin with")
    parser.add_argument("--tag", default=version(), help="their tag (default: the version)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.work = arguments.out / "work"
    try:
        base, root = base_layer(arguments.work)
        for name in arguments.names:
            make(name, base, root, arguments)
    except ImageError as error:
        parser.exit(1, f"agni_images: {error}\n")
    finally:
        shutil.rmtree(arguments.work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
