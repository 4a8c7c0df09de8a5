"""Images: the same files give the same bytes, and what runtimes look for is in them."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

from agni_images.oci import Image, Layer, rename_archive, write_archive


def tree(root: Path) -> Path:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/program").write_text("run")
    (root / "usr/bin/program").chmod(0o4777)
    (root / "usr/bin/other").symlink_to("program")
    (root / "etc").mkdir()
    (root / "etc/secret").write_text("read")
    (root / "etc/secret").chmod(0o600)
    return root


def image(root: Path) -> Image:
    base, top = Layer(), Layer()
    base.add_tree(root)
    base.add_folder("tmp", mode=0o1777)
    top.add_file("opt/text", b"words")
    top.add_folder("data", owner=65532)
    return Image(
        name="host.example/thing:1",
        layers=(base, top),
        entrypoint=("program",),
        user="65532:65532",
        environment={"A": "1"},
    )


def read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_same_files_same_bytes(tmp_path: Path) -> None:
    first = write_archive(image(tree(tmp_path / "a")), tmp_path / "a.tar")
    other = tree(tmp_path / "b")
    for path in other.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert write_archive(image(other), tmp_path / "b.tar") == first
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_other_files_other_digest(tmp_path: Path) -> None:
    root = tree(tmp_path / "a")
    first = write_archive(image(root), tmp_path / "a.tar")
    (root / "etc/secret").write_text("changed")
    assert write_archive(image(root), tmp_path / "b.tar") != first


def test_every_blob_is_what_its_name_says(tmp_path: Path) -> None:
    digest = write_archive(image(tree(tmp_path / "a")), tmp_path / "a.tar")
    files = read(tmp_path / "a.tar")
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}
    assert len(blobs) == 4
    for name, data in blobs.items():
        assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    [entry] = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"]["io.containerd.image.name"] == "host.example/thing:1"
    manifest = json.loads(blobs[blob(digest)])
    config = json.loads(blobs[blob(manifest["config"]["digest"])])
    assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
    assert config["config"]["User"] == "65532:65532"
    assert "A=1" in config["config"]["Env"]


def test_docker_finds_its_own_manifest(tmp_path: Path) -> None:
    write_archive(image(tree(tmp_path / "a")), tmp_path / "a.tar")
    files = read(tmp_path / "a.tar")
    [described] = json.loads(files["manifest.json"])
    assert described["RepoTags"] == ["host.example/thing:1"]
    assert {described["Config"], *described["Layers"]} <= files.keys()


def test_layers_hold_no_times_owners_or_set_id_bits(tmp_path: Path) -> None:
    write_archive(image(tree(tmp_path / "a")), tmp_path / "a.tar")
    files = read(tmp_path / "a.tar")
    [described] = json.loads(files["manifest.json"])
    members = {}
    for number, name in enumerate(described["Layers"]):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(files[name])
        with tarfile.open(path) as layer:
            assert layer.getnames() == sorted(layer.getnames())
            members |= {member.name: member for member in layer}
    assert {member.mtime for member in members.values()} == {0}
    assert {name: (member.mode, member.uid) for name, member in members.items()} == {
        "data": (0o755, 65532),
        "etc": (0o755, 0),
        "etc/secret": (0o644, 0),
        "opt/text": (0o644, 0),
        "tmp": (0o1777, 0),
        "usr": (0o755, 0),
        "usr/bin": (0o755, 0),
        "usr/bin/other": (0o777, 0),
        "usr/bin/program": (0o755, 0),
    }
    assert members["usr/bin/other"].linkname == "program"


def blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def test_another_name_and_the_same_content(tmp_path: Path) -> None:
    digest = write_archive(image(tree(tmp_path / "a")), tmp_path / "a.tar")
    rename_archive(tmp_path / "a.tar", "host.example/thing:2", tmp_path / "b.tar")
    before, after = read(tmp_path / "a.tar"), read(tmp_path / "b.tar")
    assert list(before) == list(after)
    assert {name for name in before if before[name] != after[name]} == {
        "index.json",
        "manifest.json",
    }
    [entry] = json.loads(after["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"]["io.containerd.image.name"] == "host.example/thing:2"
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "2"
    assert json.loads(after["manifest.json"])[0]["RepoTags"] == ["host.example/thing:2"]
