"""The systems that are measured side by side, each with two warm workers."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import joblib


class Ours:
    """golem_magic on the embedded Golem, state and share in a folder of its own."""

    name = "golem_magic"

    def __init__(self, folder: str) -> None:
        from golem_magic import Client

        self._client = Client(engine="local", share=f"{folder}/share", state_dir=f"{folder}/state", workers=2)

    def map(self, function: Callable[[Any], Any], inputs: Iterable[Any], chunk: int | None) -> Iterable[Any]:
        return self._client.map(function, inputs, chunk_size=chunk or "auto", workers=2)

    def close(self) -> None:
        self._client.close()


class Pool:
    """multiprocessing.Pool, forked after the functions were defined."""

    name = "mp.Pool"

    def __init__(self) -> None:
        self._pool = multiprocessing.get_context("fork").Pool(2)

    def map(self, function: Callable[[Any], Any], inputs: Iterable[Any], chunk: int | None) -> Iterable[Any]:
        return self._pool.imap(function, inputs, chunksize=chunk or 1)

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


class Joblib:
    """joblib with loky, its own batch size unless a chunk is given."""

    name = "joblib"

    def __init__(self) -> None:
        self._parallel = joblib.Parallel(n_jobs=2, return_as="generator")

    def map(self, function: Callable[[Any], Any], inputs: Iterable[Any], chunk: int | None) -> Iterable[Any]:
        parallel = joblib.Parallel(n_jobs=2, return_as="generator", batch_size=chunk or "auto")
        return parallel(joblib.delayed(function)(x) for x in inputs)

    def close(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


def until_first_and_last(results: Iterable[Any]) -> tuple[float, float, int]:
    """Consume results; seconds to the first and to the last one, and how many there were."""
    began = time.perf_counter()
    first, count = 0.0, 0
    for count, _ in enumerate(results, 1):  # noqa: B007 - the count is the point
        if not first:
            first = time.perf_counter() - began
    return first, time.perf_counter() - began, count


def folder() -> str:
    """Where share and state lie: GOLEM_MAGIC_BENCH_DIR, or a temporary folder."""
    parent = os.environ.get("GOLEM_MAGIC_BENCH_DIR")
    return tempfile.mkdtemp(prefix="gm-bench-", dir=parent)
