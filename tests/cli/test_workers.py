"""A stop ends, whatever the workers are in the middle of."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from openqci.cli.up import workers
from openqci.cli.up.workers import BlockWorkers

ANSWER_BYTES = 150_000_000


def long_answer(marker: Path) -> bytes:
    """Stand in for a block whose outcome takes a while to travel."""
    marker.touch()
    return bytes(ANSWER_BYTES)


@pytest.mark.parametrize("delay_s", [0.05, 0.15, 0.3])
def test_workers_stop_in_the_middle_of_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay_s: float
) -> None:
    monkeypatch.setattr(workers, "distil_block", long_answer)
    marker = tmp_path / "answering"

    async def stop_while_answering() -> Any:
        pool = BlockWorkers(1)
        order: Any = marker
        block = asyncio.create_task(pool.distil(order))
        deadline_s = time.monotonic() + 30
        while not marker.exists() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)
        await asyncio.sleep(delay_s)
        manager: Any = pool._pool
        thread = manager._executor_manager_thread
        pool.close()
        await asyncio.gather(block, return_exceptions=True)
        return thread

    thread = asyncio.run(stop_while_answering())
    thread.join(20)
    assert not thread.is_alive(), "the pool still waits for the rest of an answer that no worker writes"
