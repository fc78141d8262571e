"""The gate refuses a corpus of bad adapters; the shelf never serves bytes that their name does not vouch for."""

import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.adapters import AdapterRefused, LoraWeights, Shelf, check, check_files, load, save
from telemetry.failures import StateError
from telemetry.lora import CONFIG, WEIGHTS, load_named
from telemetry.records import BaseModelCard
from telemetry.store import open_store
from tests.corpus.adapters import BAD, CARD, factors, join, value, weights, write


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A directory that passes the gate."""
    return write(tmp_path / "adapter")


@pytest.mark.parametrize("name", BAD)
def test_the_gate_refuses(good: Path, name: str) -> None:
    spoil, reason = BAD[name]
    spoil(good)
    with pytest.raises(AdapterRefused) as refused:
        check(good, CARD, max_rank=8)
    line = str(refused.value)
    assert reason in line
    assert line.isprintable()
    assert line.partition(": ")[0].strip("'") in {CONFIG, WEIGHTS, *(file.name for file in good.iterdir())}
    assert refused.value.exit_code == 3


def test_the_gate_takes_at_most_50_ms_per_megabyte() -> None:
    modules = {f"model.layers.{n}.{m}_proj": (576, 576) for n in range(10) for m in "qkvo"}
    card = BaseModelCard(id="tiny", sha256="ab" * 32, modules=modules)
    draw = np.random.default_rng(0)
    factors = {name: (draw.random((16, 576), "f4"), draw.random((576, 16), "f4")) for name in modules}
    files = save(LoraWeights(16, 16, factors), card)
    megabytes, seconds = len(files[1]) / 1e6, []
    for _ in range(3):
        began = time.process_time()
        check_files(files, card, max_rank=16)
        seconds.append(time.process_time() - began)
    assert megabytes > 2
    assert min(seconds) <= 0.05 * megabytes


def test_what_the_gate_passes_stays_finite_in_half_precision(good: Path) -> None:
    """At the very limits, merged or multiplied one factor after the other."""
    for a, b in ((1000.0, 0.0), (0.0, 500.0), (22.36, 22.36), (1000.0, 0.5)):
        factors(good, a, b)
        check(good, CARD, max_rank=2)
        read = load(good)
        half_a, half_b = (factor.astype(np.float16) for factor in read.factors["model.layers.0.q_proj"])
        scaled = half_b * np.float16(read.scale)
        assert np.isfinite(scaled @ half_a).all()
        assert np.isfinite(scaled @ (half_a @ np.ones(4, np.float16))).all()


def test_tiny_numbers_are_no_reason_to_refuse(good: Path) -> None:
    value(good, 1e-40)
    check(good, CARD, max_rank=2)
    assert 0 < load(good).factors["model.layers.0.q_proj"][0][1, 2] < 1e-38


def test_nothing_that_reads_an_adapter_takes_values_that_are_not_finite(good: Path, tmp_path: Path) -> None:
    """Past the gate, straight onto the shelf: the second line of defence."""
    value(good, float("nan"))
    shelf = Shelf(open_store(tmp_path / "run"))
    name, _ = shelf.publish(good)
    for read in (shelf.load, lambda name: load_named(name, shelf.path)):
        with pytest.raises(AdapterRefused, match=rf"{name}: {WEIGHTS}: .*lora_A.* not finite"):
            read(name)


def test_files_replaced_between_gate_and_load_are_not_taken(good: Path, tmp_path: Path) -> None:
    """Whoever replaces the files after they were verified is found out before their weights are used."""
    shelf = Shelf(open_store(tmp_path / "run"))
    name, _ = shelf.publish(good)
    asked = []

    def path_of(adapter: str) -> Path:
        path = shelf.path(adapter)
        if not asked:
            (path / WEIGHTS).write_bytes(save(weights(seed=1), CARD)[1])
        asked.append(adapter)
        return path

    with pytest.raises(StateError, match="does not match the name"):
        load_named(name, path_of)
    assert asked == [name]


def test_the_gate_passes_a_good_one_and_names_it_by_content(good: Path) -> None:
    content = (good / WEIGHTS).read_bytes() + (good / CONFIG).read_bytes()
    assert check(good, CARD, max_rank=2) == sha256(content).hexdigest()


@pytest.mark.parametrize(("dtype", "width"), [("F16", 2), ("BF16", 2)])
def test_half_precision_passes_and_is_read(good: Path, dtype: str, width: int) -> None:
    full = weights()
    found, offset, body = {}, 0, b""
    for module, pair in full.factors.items():
        for letter, factor in zip("AB", pair, strict=True):
            data = (
                factor.astype("<f2").tobytes() if dtype == "F16" else (factor.view("<u4") >> 16).astype("<u2").tobytes()
            )
            name = f"base_model.model.{module}.lora_{letter}.weight"
            found[name] = {"dtype": dtype, "shape": list(factor.shape), "data_offsets": [offset, offset + len(data)]}
            offset, body = offset + len(data), body + data
    (good / WEIGHTS).write_bytes(join(found, body))
    check(good, CARD, max_rank=2)
    for module, pair in load(good).factors.items():
        for factor, exact in zip(pair, full.factors[module], strict=True):
            assert factor.dtype == np.float32
            np.testing.assert_allclose(factor, exact, rtol=2**-7)


@settings(deadline=None)
@given(seed=st.integers(0, 99), rank=st.integers(1, 4))
def test_save_and_load_are_inverse_and_canonical(seed: int, rank: int) -> None:
    files = save(weights(seed, rank), CARD)
    read = load(files)
    shuffled = LoraWeights(read.rank, read.alpha, dict(reversed(read.factors.items())))
    assert save(shuffled, CARD) == files
    assert (read.rank, read.alpha, read.scale) == (rank, 2 * rank, 2.0)
    for module, pair in weights(seed, rank).factors.items():
        np.testing.assert_array_equal(read.factors[module][0], pair[0])
        np.testing.assert_array_equal(read.factors[module][1], pair[1])


@settings(max_examples=300, deadline=None)
@given(which=st.integers(0, 1), where=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
def test_no_changed_byte_passes_under_the_old_name(which: int, where: float, byte: int) -> None:
    files = list(save(weights(), CARD))
    name = check_files((files[0], files[1]), CARD, 8)
    changed = bytearray(files[which])
    changed[int(where * len(changed))] ^= byte
    files[which] = bytes(changed)
    try:
        assert check_files((files[0], files[1]), CARD, 8) != name
    except AdapterRefused as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right


def test_the_shelf_keeps_adapters_by_content(good: Path, store_url: str, tmp_path: Path) -> None:
    store = open_store(store_url)
    shelf = Shelf(store, cache=tmp_path / "cache")
    name, refs = shelf.publish(good)
    assert name == check(good, CARD, max_rank=8)
    assert shelf.publish(good) == (name, refs)
    assert sorted(store.list("adapters")) == [ref.key for ref in refs]
    for _ in range(2):
        assert check(shelf.path(name), CARD, max_rank=8) == name
    np.testing.assert_array_equal(
        shelf.load(name).factors["model.layers.1.v_proj"][1], weights().factors["model.layers.1.v_proj"][1]
    )


def test_bytes_that_do_not_match_their_name_are_never_served(good: Path, store_url: str, tmp_path: Path) -> None:
    store = open_store(store_url)
    shelf = Shelf(store, cache=tmp_path / "cache")
    name, refs = shelf.publish(good)
    spoiled = bytearray(store.get(refs[1].key))
    spoiled[-1] ^= 1
    store.delete(refs[1].key)
    store.put_if_absent(refs[1].key, bytes(spoiled))
    for use in (shelf.path, shelf.load):
        with pytest.raises(StateError, match="does not match the name"):
            use(name)
    assert shelf.publish(good) == (name, refs), "made again, it is repaired"
    assert check(shelf.path(name), CARD, max_rank=8) == name


@pytest.mark.s3
def test_a_spoiled_cache_is_filled_again(good: Path, s3_server: str, tmp_path: Path) -> None:
    shelf = Shelf(open_store(f"{s3_server}/{tmp_path.name}"), cache=tmp_path / "cache")
    name, _ = shelf.publish(good)
    cached = shelf.path(name)
    assert cached.is_relative_to(tmp_path / "cache")
    (cached / WEIGHTS).write_bytes(b"spoiled")
    assert check(shelf.path(name), CARD, max_rank=8) == name


@pytest.mark.parametrize("name", ["../../etc", "", "A" * 64, "a" * 63])
def test_only_hashes_are_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(StateError, match="64 hexadecimal"):
        Shelf(open_store(tmp_path)).path(name)


def test_an_unknown_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"adapters/aaaa.*missing"):
        Shelf(open_store(tmp_path)).path("a" * 64)
