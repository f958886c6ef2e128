"""Files of a job grow with workers, claims and slowly with time, never with inputs."""

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import virtual_hour
from fakes.virtual_hour import VirtualWorker, n_files, work_through
from fakes.world import embedded_client

from golem_magic import Client
from golem_magic.pacing import GATHER_S
from golem_magic.share.book import Book

MOST_FILES = 200  # of a job of a million tasks of a microsecond, at any time
MOST_IN_AN_HOUR = 5_000
HOUR_S = 3600


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("world")) as client:
        assert list(client.map(abs, [-1])) == [1]
        yield client


def tiny(x: int) -> int:
    for _ in range(20):
        pass
    return x


def folder_of(client: Client, job_id: str) -> str:
    return f"{client.settings.share}/jobs/{job_id}"


def count(folder: str) -> int:
    return sum(len(folders) + len(names) for _, folders, names in os.walk(folder))


class Watch:
    """Counts the files of a new job all the time."""

    def __init__(self, jobs: Path) -> None:
        self.most = 0
        self._jobs, self._old = jobs, set(jobs.iterdir())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._over.wait(0.02):
            new = set(self._jobs.iterdir()) - self._old
            self.most = max(self.most, *(count(str(folder)) for folder in new), 0)


@pytest.mark.parametrize("source", [range, lambda n: (x for x in range(n))], ids=["a range", "a generator"])
def test_a_million_tiny_tasks_are_few_files_at_any_time(client: Client, source: type[range]) -> None:
    n_tasks = 1_000_000
    with Watch(Path(f"{client.settings.share}/jobs")) as watch:
        results = client.map(tiny, source(n_tasks))
        assert sum(results) == n_tasks * (n_tasks - 1) // 2

    assert 50 < count(folder_of(client, results.job_id)) <= MOST_FILES
    assert watch.most <= MOST_FILES


def test_inputs_that_trickle_in_are_gathered(client: Client) -> None:
    def slowly() -> Iterator[int]:
        for x in range(150_000):
            for _ in range(150):
                pass
            yield x

    begun_s = time.monotonic()
    results = client.map(tiny, slowly(), stream=True)
    assert sum(1 for _ in results) == 150_000
    seconds = time.monotonic() - begun_s

    n_rounds = len(os.listdir(f"{folder_of(client, results.job_id)}/rounds"))
    assert n_rounds <= 15 + 2 * seconds / GATHER_S  # as many as one tries at first, then one per worker


def lengths(kind: str, hours: float) -> list[float]:
    """Tasks that keep two workers busy for some hours."""
    chance, busy_s = random.Random(1), 2 * hours * HOUR_S
    drawn: dict[str, list[float]] = {
        "of 50 ms": [0.05] * int(busy_s / 0.05),
        "of 1 s": [1.0] * int(busy_s),
        "of about 1 s": [chance.expovariate(1) for _ in range(int(busy_s))],
        "of about 10 s": [chance.expovariate(0.1) for _ in range(int(busy_s / 10))],
        "short and long": [chance.choice([0.05] * 9 + [5.0]) for _ in range(int(busy_s / 0.545))],
    }
    return drawn[kind]


@pytest.mark.unit
@pytest.mark.parametrize(
    "kind",
    [
        "of about 1 s",
        pytest.param("short and long", marks=pytest.mark.slow),
        pytest.param("of 50 ms", marks=pytest.mark.slow),
        pytest.param("of 1 s", marks=pytest.mark.slow),
        pytest.param("of about 10 s", marks=pytest.mark.slow),
    ],
)
def test_an_hour_of_two_workers_is_a_bounded_number_of_files(share: Path, kind: str) -> None:
    tasks = lengths(kind, 1)

    paths, took_s = work_through(share, tasks)

    book = Book(paths)
    book.look()
    assert book.n_outcomes == len(tasks)
    assert HOUR_S * 0.9 < took_s < HOUR_S * 1.1
    found = n_files(paths)
    print(f"an hour of tasks {kind}: {found['all']} files, {found['data']} of them with outcomes")
    assert 500 < found["all"] <= MOST_IN_AN_HOUR


@pytest.mark.unit
def test_who_is_told_to_leave_publishes_first(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[int] = []

    class Leaving(VirtualWorker):
        def look(self) -> None:
            leaves = self.now() > 600.2 and not self._page.leave
            self._page.leave = self._page.leave or leaves
            super().look()
            if leaves:
                book = Book(self._paths)
                book.look()
                published.append(book.n_outcomes)

    monkeypatch.setattr(virtual_hour, "VirtualWorker", Leaving)

    work_through(share, [0.5] * 1200 + [1000.0] * 100, workers=1)

    assert published == [1200]
