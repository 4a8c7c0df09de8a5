"""`Node`: the real registry inside this very process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agniregistry import Client, Key, Kind, Spec
from agniregistry_node import AgniNodeError, ConfigError, Node
from agniregistry_node._bridge import Server, build_profile, version
from agniregistry_node.config import NodeConfig
from agniregistry_node.lock import DataDirLock

KEY = Key(kind=Kind.GATEWAY, name="a.example")
SPEC = Spec(region="global", domain="a.example", port=4000)


def test_a_node_of_a_moment_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Node() as node, Client(node.address) as client:
        assert node.ready
        client.put(KEY, SPEC)
        assert client.get(KEY).record.spec == SPEC
        assert node.status()
    assert list(tmp_path.iterdir()) == []
    assert not node.ready
    with pytest.raises(AgniNodeError, match="doesn't run"):
        node.status()


def test_a_folder_of_ones_own_is_kept_and_served_again(tmp_path: Path) -> None:
    with Node(tmp_path / "data") as node, Client(node.address) as client:
        client.put(KEY, SPEC)
    with Node(tmp_path / "data") as node, Client(node.address) as client:
        assert client.get(KEY).record.spec == SPEC


def test_two_nodes_stand_side_by_side_but_not_in_one_folder(tmp_path: Path) -> None:
    with Node(tmp_path / "a") as one, Node(tmp_path / "b") as two:
        assert one.address != two.address
        with pytest.raises(AgniNodeError) as caught:
            Node(tmp_path / "a").start()
        assert caught.value.code == "DATA_DIR_LOCKED"
        assert one.ready


def test_settings_are_checked_and_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Node(partitions=3, log_level="loud").start()
    assert len(caught.value.faults) == 2
    with pytest.raises(TypeError):
        Node(surprise=1).start()


def test_a_failed_start_gives_the_folder_up(tmp_path: Path) -> None:
    with Node(tmp_path / "data") as node:
        with pytest.raises(AgniNodeError) as caught:
            Node(tmp_path / "other", listen=node.address).start()
        assert caught.value.code == "LISTEN"
    with DataDirLock(tmp_path / "other"):
        pass


def test_rust_checks_once_more(tmp_path: Path) -> None:
    """What Python would have refused is refused by the engine, too, with the same code."""
    for wrong in (NodeConfig(partitions=3), NodeConfig(cluster_id="zz"), NodeConfig(log_level="x")):
        config = NodeConfig(
            data_dir=str(tmp_path),
            listen="127.0.0.1:0",
            partitions=wrong.partitions,
            cluster_id=wrong.cluster_id,
            log_level=wrong.log_level,
        )
        with pytest.raises(AgniNodeError) as caught:
            Server.start(config)
        assert caught.value.code == "CONFIG_INVALID"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    with Node(tmp_path / "data") as node:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                node.status()
            except AgniNodeError as error:
                code = 0 if error.code == "FORKED" else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert node.ready


def test_stopping_twice_is_fine() -> None:
    node = Node().start()
    with pytest.raises(AgniNodeError, match="already"):
        node.start()
    node.stop()
    node.stop()


def test_version_and_profile_are_told() -> None:
    assert version.count(".") == 2
    assert build_profile in ("debug", "release")
