"""A short run of the torture of two KMEs; ``make torture`` runs it as long as you like."""

from pathlib import Path

import pytest

from tests.keystore.postgres import server_url
from tests.kme.torture import Book, killed, report, torture
from tests.system.make import free_port_base

SECONDS, SEED = 15.0, 2026
KEYS_MIN, KILLS_MIN = 1_001, 3


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_kill_minus_nine_loses_and_repeats_nothing(tmp_path: Path, store: str) -> None:
    # On PostgreSQL one of the two has workers, which are killed one by one, too.
    database, workers = (server_url(), {"a": 2}) if store == "postgresql" else (None, {})
    book = torture(tmp_path, free_port_base(40, 11800), SECONDS, SEED, database, workers, KEYS_MIN, KILLS_MIN)
    assert not book.faults, report(book, SECONDS, SEED)
    assert book.counts["acknowledged to slaves"] >= KEYS_MIN
    assert killed(book) >= KILLS_MIN
    assert bool(book.counts["kills of workers of a"]) == bool(workers)
    assert book.counts["bytes in stock, alike at both ends"] > 0


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        (lambda book: [book.master_got(["1"], [b"k"]), book.master_got(["2"], [b"k"])], "to a master twice"),
        (lambda book: [book.master_got(["1"], [b"k"]), book.slave_got(["1"], [b"x"])], "differs"),
        (
            lambda book: [book.master_got(["1"], [b"k"])] + [book.slave_got(["1"], [b"k"]) for _ in "12"],
            "to a slave twice",
        ),
        (lambda book: [book.master_got(["1"], [b"k"]), book.slave_refused(["1"])], "cannot be fetched"),
    ],
)
def test_the_book_sees_what_would_be_wrong(acts: object, expected: str) -> None:
    book = Book()
    acts(book)  # type: ignore[operator]
    assert len(book.faults) == 1 and expected in book.faults[0]
