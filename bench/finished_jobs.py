"""Would one file be better than many? Reads and removes the outcomes of finished jobs, cut differently.

``python -m bench.finished_jobs [FOLDER ...]``. Cold: after the data have been dropped from the page cache.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time

from golem_magic import payload
from golem_magic.model import JobId
from golem_magic.share import jobs, outcome_files
from golem_magic.share.layout import Done, JobPaths, parse_entry

N_TASKS = 72_000
N_FILES = (1, 60, 720, 3_600)  # the last but one is about what an hour of two workers leaves


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.finished_jobs")
    parser.add_argument("folders", nargs="*", default=["/dev/shm", "/tmp"])
    for folder in parser.parse_args().folders:
        for size in (0, 1_000):
            for n_files in N_FILES:
                sys.stdout.write(f"{folder}: {measure(folder, n_files, size)}\n")
                sys.stdout.flush()


def measure(folder: str, n_files: int, size: int) -> str:
    """One job's figures; outcomes of ``size`` bytes, small numbers for 0."""
    root = tempfile.mkdtemp(dir=folder)  # private
    try:
        paths, entries = make(root, n_files, size)
        warm_s = statistics.median(read(paths, entries) for _ in range(5))
        cold_s = statistics.median(read(paths, drop(paths, entries)) for _ in range(3))
        disk = sum(os.lstat(f"{paths.data}/{entry.file}").st_blocks * 512 for entry in entries)
        begun_s = time.perf_counter()
    finally:
        shutil.rmtree(root)
    return (
        f"{N_TASKS} outcomes of {size or 'few'} bytes in {n_files} files: {disk / 1e6:.1f} MB on disk, "
        f"read in {1000 * warm_s:.0f} ms, cold {1000 * cold_s:.0f} ms, "
        f"removed in {1000 * (time.perf_counter() - begun_s):.0f} ms"
    )


def make(root: str, n_files: int, size: int) -> tuple[JobPaths, list[Done]]:
    paths = jobs.make_share(root).job(JobId("0" * 32))
    for folder in (paths.root, *paths.folders):
        os.mkdir(folder)
    entries, length = [], N_TASKS // n_files
    for start in range(0, N_TASKS, length):
        values = [os.urandom(size) if size else task for task in range(start, start + length)]
        target = outcome_files.write(paths, start, payload.dump((values, {})), (length, 0), "w+1")
        entry = parse_entry(target)
        assert isinstance(entry, Done)
        entries.append(entry)
    return paths, entries


def drop(paths: JobPaths, entries: list[Done]) -> list[Done]:
    """Have the next reading wait for the disk, as far as the system lets us."""
    os.sync()
    for entry in entries:
        fd = os.open(f"{paths.data}/{entry.file}", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    return entries


def read(paths: JobPaths, entries: list[Done]) -> float:
    begun_s = time.perf_counter()
    assert sum(len(outcome_files.read(paths, entry)) for entry in entries) == N_TASKS
    return time.perf_counter() - begun_s


if __name__ == "__main__":
    main()
