"""Libraries that take an executor, and objects that the standard library shares."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import jobs
from offloop import Executor


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


SHARED = """
import multiprocessing
from offloop import Executor

with multiprocessing.Manager() as manager, Executor(2) as executor:
    queue = manager.Queue()
    list(executor.map(lambda value: queue.put(value), range(4)))
    print(sorted(queue.get(timeout=30) for _ in range(4)))
"""


@pytest.mark.slow
def test_proxies_of_a_manager_work_in_workers():
    out = subprocess.check_output([sys.executable, "-c", SHARED], text=True, timeout=60)
    assert out == "[0, 1, 2, 3]\n"


@pytest.mark.slow
def test_dask_computes_with_it(executor):
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler=executor):
        parts = [dask.delayed(jobs.add)(n, 1) for n in range(20)]
        assert dask.delayed(sum)(parts).compute() == 210
    assert dask.delayed(jobs.add)(1, 2).compute(scheduler=executor) == 3


def test_tqdm_counts_its_results(executor, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # no thread that stays
    with tqdm.tqdm(executor.map(jobs.add, range(30)), total=30, disable=None) as bar:
        assert list(bar) == list(range(30))


def test_threads_share_it_until_it_is_shut_down(executor):
    begun = threading.Barrier(8)

    def work(number):
        begun.wait(60)
        futures = [executor.submit(jobs.add, n, number) for n in range(50)]
        mapped = list(executor.map(jobs.add, range(50), [number] * 50))
        assert [future.result() for future in futures] == mapped
        return mapped[-1]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == list(range(49, 57))
