"""Worker processes that make blocks: photons and both ends' distillation, away from the serving process."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from openqci.twin.block import BlockOrder, BlockOutcome, distil_block
from openqci.twin.pass_block import PassOrder, distil_pass

WORKER_NICENESS = 10
"""Answers to applications come before new key: workers yield the processor to the serving process."""

PARENT_CHECK_S = 0.5


class BlockWorkers:
    """A pool of processes; a worker that dies costs its block and nothing else."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = self._new_pool()

    async def distil(self, order: BlockOrder | PassOrder) -> BlockOutcome:
        """Make one block. Raises BrokenProcessPool if the worker died; the pool is whole again then."""
        pool, loop = self._pool, asyncio.get_running_loop()
        try:
            if isinstance(order, PassOrder):
                return await loop.run_in_executor(pool, distil_pass, order)
            return await loop.run_in_executor(pool, distil_block, order)
        except BrokenProcessPool:
            if pool is self._pool:
                self._pool = self._new_pool()
            raise

    def close(self) -> None:
        """Stop the workers; blocks under way are given up."""
        processes = list((self._pool._processes or {}).values())
        answers: Any = self._pool._result_queue
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        # A worker that dies in the middle of an answer leaves half of it in the pipe. The pool would wait for
        # the rest, and the interpreter for the pool, for ever: with no writer left it reads the end instead.
        answers._writer.close()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=prepare_worker, initargs=(os.getpid(),)
        )


def prepare_worker(parent_pid: int) -> None:
    """Lower the priority, leave Ctrl-C to the parent, and end with it even if it was killed."""
    os.nice(WORKER_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, args=(parent_pid,), daemon=True).start()


def end_with_parent(parent_pid: int) -> None:
    """Leave as soon as the parent is gone: a pool's worker would otherwise wait for orders for ever."""
    while os.getppid() == parent_pid:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)
