"""Whole individuals in a batch, and nobody starves."""

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.batches import Line


def line(size: int, *adapters: str | None) -> Line:
    one = Line(size)
    for number, adapter in enumerate(adapters):
        one.add(f"{adapter}{number}", adapter)
    return one


def test_requests_of_an_adapter_are_taken_together_in_the_order_in_which_adapters_began_to_wait() -> None:
    one = line(4, "b", None, "a", "b", None, "a")
    assert one.take(4) == ["b0", "b3", "None1", "None4"]
    assert one.take(4) == ["a2", "a5"]
    assert one.take(4) == []


def test_an_adapter_that_did_not_fit_goes_on_first() -> None:
    one = line(4, "a", "a", "a", "b", "b", "b")
    assert one.take(4) == ["a0", "a1", "a2", "b3"]
    one.add("a9", "a")
    assert one.take(4) == ["b4", "b5", "a9"]


def test_whoever_fills_a_batch_goes_to_the_end_of_the_line() -> None:
    one = line(2, "a", "a", "a", "b", "a")
    assert one.take(2) == ["a0", "a1"]
    assert one.take(2) == ["b3", "a2"]
    assert one.take(2) == ["a4"]


def test_a_batch_that_empties_bit_by_bit_is_filled_with_the_same_adapter() -> None:
    one = line(3, "a", "b", "a", "b", "a", "b", "a")
    assert [one.take(1) for _ in range(7)] == [["a0"], ["a2"], ["a4"], ["b1"], ["b3"], ["b5"], ["a6"]]
    assert one.take(0) == []


@given(
    size=st.integers(1, 5),
    rounds=st.lists(st.tuples(st.lists(st.sampled_from("abcd"), max_size=8), st.integers(0, 5)), max_size=20),
)
def test_everything_is_taken_once_and_nobody_is_passed_over_for_long(
    size: int, rounds: list[tuple[list[str], int]]
) -> None:
    one, added, taken = Line(size), [], []
    for adapters, room in rounds:
        for adapter in adapters:
            added.append(f"{adapter}{len(added)}")
            one.add(added[-1], adapter)
        got = one.take(min(room, size))
        assert len(got) == min(room, size, len(added) - len(taken))
        taken += got
    waiting = [name for name in added if name not in taken]
    left = []
    while names := one.take(size):
        left += names
    assert sorted(taken + left) == sorted(added)
    for adapter in {name[0] for name in waiting}:
        own = [name for name in waiting if name[0] == adapter]
        # Of the others' at most a batch each goes before its first.
        before = left[: left.index(own[0])]
        assert all(sum(name[0] == other for name in before) <= size for other in "abcd")
        assert [name for name in left if name[0] == adapter] == own
