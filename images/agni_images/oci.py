"""Writes OCI images: layers as tar files in which nothing depends on when or where it was made.

One archive is read by `ctr images import`, `docker load`, `kind load image-archive` and skopeo.
The same files in, the same digest out.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
NAME_ANNOTATION = "io.containerd.image.name"
REFERENCE_ANNOTATION = "org.opencontainers.image.ref.name"
CREATED = "1970-01-01T00:00:00Z"
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass
class Entry:
    """One file, folder or link of a layer."""

    mode: int
    kind: bytes = tarfile.REGTYPE
    content: bytes | Path = b""
    target: str = ""
    owner: int = 0


class Layer:
    """Files by their path in the image, without a leading slash."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add_file(self, path: str, content: bytes | Path, *, mode: int = 0o644) -> None:
        """A file, from memory or from a file that is read when the layer is written."""
        self._entries[path] = Entry(mode, content=content)

    def add_folder(self, path: str, *, mode: int = 0o755, owner: int = 0) -> None:
        """A folder; those above a file need not be added."""
        self._entries[path] = Entry(mode, tarfile.DIRTYPE, owner=owner)

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._entries[path] = Entry(0o777, tarfile.SYMTYPE, target=target)

    def add_tree(self, root: Path, at: str = "") -> None:
        """Everything below a folder of this machine, with its modes but owned by root."""
        for path in sorted(root.rglob("*")):
            name = str(PurePosixPath(at) / path.relative_to(root).as_posix())
            if path.is_symlink():
                self.add_link(name, str(path.readlink()))
            elif path.is_dir():
                self.add_folder(name, mode=plain_mode(path))
            elif path.is_file():
                self.add_file(name, path, mode=plain_mode(path))

    def write(self, archive: tarfile.TarFile) -> None:
        """Writes the entries in the order of their names, without times and users' names."""
        for name, entry in sorted(self._entries.items()):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = entry.kind, entry.mode, entry.target
            info.uid = info.gid = entry.owner
            is_file = isinstance(entry.content, Path)
            data = entry.content.read_bytes() if isinstance(entry.content, Path) else entry.content
            info.size = len(data) if is_file or entry.kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(data))


def plain_mode(path: Path) -> int:
    """Who may read and run it, as every checkout and umask would have it: no set-id bits."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return 0o755
    return 0o755 if mode & stat.S_IXUSR else 0o644


@dataclass(frozen=True)
class Image:
    """What a container runtime is told of an image."""

    name: str
    """With a tag: `agniregistry/node:0.1.0`."""
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    user: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    architecture: str = "amd64"


class Blobs:
    """Content by its digest, in files of a folder that is removed by its owner."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Takes content; answers its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.content[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def encoded(document: Any) -> bytes:
    """JSON, always in the same order."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def layer_tar(layer: Layer) -> bytes:
    """A layer as a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        layer.write(archive)
    return buffer.getvalue()


def config_of(image: Image, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The image's configuration document."""
    variables = {"PATH": PATH, **image.environment}
    return {
        "architecture": image.architecture,
        "os": "linux",
        "created": CREATED,
        "config": {
            "User": image.user,
            "Env": [f"{key}={value}" for key, value in variables.items()],
            "Entrypoint": list(image.entrypoint),
            "Labels": image.labels,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }


def write_archive(image: Image, target: Path) -> str:
    """Writes an image as one tar file; answers the digest of its manifest."""
    blobs = Blobs()
    layers = [blobs.add(layer_tar(layer), LAYER_TYPE) for layer in image.layers]
    config = blobs.add(encoded(config_of(image, layers)), CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config,
        "layers": layers,
    }
    descriptor = blobs.add(encoded(manifest), MANIFEST_TYPE)
    tag = image.name.rpartition(":")[2]
    annotated = {
        **descriptor,
        "annotations": {NAME_ANNOTATION: image.name, REFERENCE_ANNOTATION: tag},
        "platform": {"architecture": image.architecture, "os": "linux"},
    }
    docker = {
        "Config": blob_path(config["digest"]),
        "RepoTags": [image.name],
        "Layers": [blob_path(layer["digest"]) for layer in layers],
    }
    files = {
        "oci-layout": encoded({"imageLayoutVersion": "1.0.0"}),
        "index.json": encoded({"schemaVersion": 2, "manifests": [annotated]}),
        "manifest.json": encoded([docker]),
    }
    files |= {blob_path(digest): data for digest, data in sorted(blobs.content.items())}
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(descriptor["digest"])


def blob_path(digest: str) -> str:
    """Where content is in the archive."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def rename_archive(source: Path, name: str, target: Path) -> None:
    """Writes an archive with the same content under another name, as a new tag would."""
    with tarfile.open(source) as old, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as new:
        for member in old:
            file = old.extractfile(member)
            data = b"" if file is None else file.read()
            if member.name in ("index.json", "manifest.json"):
                data = encoded(_renamed(json.loads(data), name))
            info = tarfile.TarInfo(member.name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))


def _renamed(document: Any, name: str) -> Any:
    """The list of an archive's images, OCI's or Docker's, with another name in it."""
    if isinstance(document, list):
        return [{**entry, "RepoTags": [name]} for entry in document]
    tag = name.rpartition(":")[2]
    annotations = {NAME_ANNOTATION: name, REFERENCE_ANNOTATION: tag}
    entries = [{**entry, "annotations": annotations} for entry in document["manifests"]]
    return {**document, "manifests": entries}
