"""What is compiled for the end-to-end tests: built again exactly when its sources have changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agni_e2e import PlatformError, places
from agni_e2e.parts import PARTS, TIERS, Part, parts_of


def test_every_part_has_sources_and_a_key_of_its_own() -> None:
    keys = {part.key("go1.26") for part in PARTS}
    assert len(keys) == len(PARTS)
    for part in PARTS:
        assert any(path.name == "go.mod" for path in part.sources()), part.name


def test_key_follows_sources_and_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(places.SOURCES, tmp_path / "cluster")
    monkeypatch.setattr(places, "SOURCES", tmp_path / "cluster")
    control = next(part for part in PARTS if part.name == "kubernetes-control")
    machine = next(part for part in PARTS if part.name == "kubernetes-machine")
    before, other = control.key("go1.26"), machine.key("go1.26")
    assert control.key("go1.27") != before
    main = tmp_path / "cluster" / "kubernetes" / "control" / "main.go"
    main.write_text(main.read_text() + "\n")
    assert control.key("go1.26") != before
    assert machine.key("go1.26") == other


def test_quick_tier_needs_no_machine() -> None:
    names = {part.name for part in parts_of("quick")}
    assert names == set(TIERS["quick"])
    assert not names & {"kubernetes-machine", "coredns", "pause"}
    assert {part.name for part in parts_of("full")} == {part.name for part in PARTS}
    with pytest.raises(PlatformError, match="must be one of"):
        parts_of("middle")


def test_kubernetes_tells_its_version() -> None:
    flags = next(part for part in PARTS if part.name == "kubernetes-control").linker_flags
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion=v1.34.4" in flags
        assert f"-X {package}.gitMinor=34" in flags


def test_versions_are_those_of_the_module_files() -> None:
    required = (places.SOURCES / "kubernetes" / "go.mod").read_text()
    assert "k8s.io/kubernetes v1.34.4" in required
    assert isinstance(PARTS[0], Part)
