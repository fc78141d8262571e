"""The ledger against a model that knows nothing of it: the lives that were acknowledged."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from telemetry.failures import StorageError
from telemetry.ledger import Ledger, Receipt
from telemetry.tables import TABLES
from tests.faults.trouble import FAST, LARGE, SMALL, TROUBLE, UnsafeLocalStore
from tests.telemetry.rows import lives

pytestmark = pytest.mark.timeout(900)


class LedgerMachine(RuleBasedStateMachine):
    """Sinks append, repeat and die; readers see the acknowledged lives, in order, once, whatever else is there."""

    receipts = Bundle("receipts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(dir=FAST)
        self.root = Path(self.folder.name)
        self.ledger, self.zombie = self.open(), self.open()
        self.attempts: dict[str, str] = {}
        """Acknowledged life -> attempt."""
        self.pinned: dict[str, int] = {}
        self.appends = 0

    def open(self) -> Ledger:
        return Ledger(UnsafeLocalStore(self.root, create=True))

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(target=receipts, count=st.integers(1, 3), zombie=st.booleans(), lose=TROUBLE)
    def append(self, count: int, zombie: bool, lose: str) -> tuple[str, Any, Receipt]:
        ledger = self.zombie if zombie else self.ledger
        name = f"t{self.appends}"
        self.appends += 1
        rows = lives(count, individual=f"g000-{self.appends:03d}")
        ledger.store.lose = lose  # type: ignore[attr-defined]
        try:
            receipt = ledger.append(*rows, name)
            assert not lose
        except StorageError:
            assert lose
            receipt = ledger.append(*rows, name)
        return name, rows, receipt

    @rule(append=receipts, zombie=st.booleans())
    def repeat(self, append: tuple[str, Any, Receipt], zombie: bool) -> None:
        name, rows, receipt = append
        assert (self.zombie if zombie else self.ledger).append(*rows, name) == receipt

    @rule(append=receipts)
    def acknowledge(self, append: tuple[str, Any, Receipt]) -> None:
        _, _, receipt = append
        # A driver acknowledges the appends of one sink in their order.
        if all(receipt.versions[name] >= self.pinned.get(name, 0) for name in TABLES):
            self.pinned = dict(receipt.versions)
            self.attempts |= {attempt: attempt for attempt in receipt.attempts}

    @rule(torn=st.sampled_from([b"", b"\0" * 300, b'{"add":{"pa', None]))
    def resume(self, torn: bytes | None) -> None:
        """A new driver; a power cut may have left half a log entry that nobody acknowledged."""
        if torn is not None and self.pinned:
            log = self.root / "ledger" / "steps" / "_delta_log"
            newest = max(int(path.stem) for path in log.glob("*.json"))
            (log / f"{newest + 1:020d}.json").write_bytes(torn)
        self.ledger, self.zombie = self.open(), self.open()
        removed = self.ledger.repair(self.pinned)
        assert len(removed) == (torn is not None and bool(self.pinned))

    @invariant()
    def readers_see_what_was_acknowledged(self) -> None:
        if self.pinned:
            for name in TABLES:
                rows = self.ledger.read(name, self.pinned[name], attempts=self.attempts)
                keys = rows.select([key for key in ("individual", "life", "step") if key in rows.schema.names])
                assert [tuple(row.values()) for row in keys.to_pylist()] == list(self.expected(name))

    def expected(self, name: str) -> Iterator[tuple[object, ...]]:
        """Keys of the rows of acknowledged lives; each has three steps and an attempt named after it."""
        for attempt in sorted(self.attempts):
            individual, _, life = attempt.partition("/")
            steps = [(step,) for step in range(3)] if name == "steps" else [()]
            yield from ((individual, int(life), *step) for step in steps)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(settings(SMALL, max_examples=5, stateful_step_count=12), id="small"),
        pytest.param(settings(LARGE, max_examples=25, stateful_step_count=25), id="large", marks=pytest.mark.faults),
    ],
)
def test_the_ledger_shows_what_was_acknowledged(size: settings) -> None:
    run_state_machine_as_test(LedgerMachine, settings=size)
