"""Placement of actors on the nodes of a cluster; real nodes are lost in tests/faults."""

from collections import Counter

import pytest

from telemetry import nodes
from telemetry.nodes import Nodes


def some(*present: str, leaving: tuple[str, ...] = ()) -> Nodes:
    found = Nodes()
    found.tell(present, leaving)
    return found


def test_every_node_carries_its_share() -> None:
    found = some("a", "b", "c")
    assert Counter(found.take() for _ in range(7)) == {"a": 3, "b": 2, "c": 2}
    found.release("c")
    found.release("c")
    assert [found.take() for _ in range(3)] == ["c", "c", "b"]


def test_nothing_is_placed_on_a_node_that_leaves_or_is_suspect() -> None:
    found = some("a", "b", "c", leaving=("a",))
    found.suspect("b")
    assert {found.take() for _ in range(4)} == {"c"}
    found.suspect("c")
    assert found.take() is None


def test_a_suspicion_passes_and_a_notice_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = some("a", "b", leaving=("a",))
    found.suspect("b")
    found.tell(["a", "b"], [])
    monkeypatch.setattr(nodes, "SUSPECT_SECONDS", 0.0)
    assert found.take() == "b"
    assert found.is_leaving("a")
    assert found.any_leaving(["b", "a"])
    assert not found.any_leaving(["b"])


def test_a_node_that_is_gone_is_no_place() -> None:
    found = some("a", "b")
    found.tell(["b"], [])
    assert found.take() == "b"
    found.tell([], [])
    assert found.take() is None


def test_nodes_with_gpus_are_left_to_who_needs_them() -> None:
    found = Nodes()
    found.tell(["a", "b", "c"], [], accelerated=["a"])
    assert {found.take() for _ in range(4)} == {"b", "c"}
    found.tell(["a"], [], accelerated=["a"])
    assert found.take() == "a"
