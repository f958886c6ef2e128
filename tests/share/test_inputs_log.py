"""Inputs while they are being written: whole blocks are found, torn ones are not there yet."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golem_magic import payload
from golem_magic.errors import FormatError, ShareError
from golem_magic.share import files
from golem_magic.share.inputs_log import RECORD_BYTES, InputReader, InputWriter, count_inputs
from golem_magic.share.layout import JobPaths


@pytest.fixture
def paths(share: Path) -> JobPaths:
    """The folder of a job that has nothing but ``control``."""
    (share / "job" / "control").mkdir(parents=True)
    return JobPaths(str(share / "job"))


def append(writer: InputWriter, values: list[Any]) -> None:
    writer.append(payload.dump(values), len(values))


def write(paths: JobPaths, *blocks: list[Any]) -> None:
    writer = InputWriter(paths)
    for block in blocks:
        append(writer, block)
    writer.close()


@pytest.mark.unit
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_any_range_of_tasks_is_read_across_blocks(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("job")
    (folder / "control").mkdir()
    paths = JobPaths(str(folder))
    inputs = [f"input {number}" for number in range(sum(sizes))]
    rest = iter(inputs)
    write(paths, *([next(rest) for _ in range(size)] for size in sizes))
    reader = InputReader(paths)

    assert reader.refresh() == reader.staged == len(inputs)
    for _ in range(5):
        start = data.draw(st.integers(0, len(inputs)))
        end = data.draw(st.integers(start, len(inputs)))
        assert reader.tasks(start, end) == inputs[start:end]


@pytest.mark.unit
def test_nothing_is_staged_before_there_is_a_file(paths: JobPaths) -> None:
    assert InputReader(paths).refresh() == 0


@pytest.mark.unit
def test_the_number_of_inputs_is_known_when_they_are_closed(paths: JobPaths) -> None:
    writer = InputWriter(paths)
    append(writer, [1, 2, 3])
    assert count_inputs(paths) is None

    writer.close()

    assert count_inputs(paths) == 3


@pytest.mark.unit
def test_no_inputs_are_a_number_too(paths: JobPaths) -> None:
    write(paths)

    assert count_inputs(paths) == 0


@pytest.mark.unit
def test_a_number_that_is_none_is_refused(paths: JobPaths) -> None:
    Path(paths.closed).symlink_to("many")

    with pytest.raises(ShareError, match="many"):
        count_inputs(paths)


@pytest.mark.unit
def test_a_job_has_one_writer(paths: JobPaths) -> None:
    write(paths, [1])

    with pytest.raises(ShareError, match=r"inputs\.0\.log"):
        InputWriter(paths)


@pytest.mark.unit
def test_a_growing_file_is_read_as_far_as_it_goes(paths: JobPaths) -> None:
    writer, reader = InputWriter(paths), InputReader(paths)
    seen = []
    for number in range(4):
        append(writer, [number] * 3)
        seen.append(reader.refresh())
        assert reader.tasks(seen[-1] - 3, seen[-1]) == [number] * 3
    writer.close()

    assert seen == [3, 6, 9, 12]
    assert reader.tasks(2, 10) == [0, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.unit
@pytest.mark.parametrize("n_bytes", range(1, RECORD_BYTES))
def test_a_torn_record_is_not_there_until_it_is_whole(paths: JobPaths, n_bytes: int) -> None:
    write(paths, [0, 1], [2, 3, 4])
    index = Path(paths.inputs_index)
    whole = index.read_bytes()
    index.write_bytes(whole[: RECORD_BYTES + n_bytes])
    reader = InputReader(paths)

    torn = reader.refresh()
    index.write_bytes(whole)

    assert (torn, reader.refresh()) == (2, 5)
    assert reader.tasks(0, 5) == [0, 1, 2, 3, 4]


@pytest.mark.unit
def test_a_record_of_zeros_is_not_there_yet(paths: JobPaths) -> None:
    """What a network file system shows of a file that it knows to be longer than what has arrived."""
    write(paths, [0, 1], [2, 3, 4], [5])
    index = Path(paths.inputs_index)
    whole = index.read_bytes()
    index.write_bytes(whole[:RECORD_BYTES] + bytes(RECORD_BYTES) + whole[2 * RECORD_BYTES :])
    reader = InputReader(paths)

    torn = reader.refresh()
    index.write_bytes(whole)

    assert (torn, reader.refresh()) == (2, 6)


@pytest.mark.unit
@pytest.mark.parametrize("at", range(RECORD_BYTES))
def test_any_altered_byte_of_a_record_hides_it(paths: JobPaths, at: int) -> None:
    write(paths, [0, 1], [2])
    index = bytearray(Path(paths.inputs_index).read_bytes())
    index[RECORD_BYTES + at] ^= 1
    Path(paths.inputs_index).write_bytes(index)

    assert InputReader(paths).refresh() == 2


@pytest.mark.unit
@pytest.mark.parametrize("at", [-1, -20, 3, 20])
def test_an_altered_block_is_refused_and_its_neighbours_are_read(paths: JobPaths, at: int) -> None:
    write(paths, list(range(100)), list(range(100, 200)))
    log = bytearray(Path(paths.inputs_log(0)).read_bytes())
    middle = payload.dump(list(range(100))).size
    log[len(log) + at if at < 0 else middle + at] ^= 1
    Path(paths.inputs_log(0)).write_bytes(log)
    reader = InputReader(paths)
    reader.refresh()

    assert reader.tasks(0, 100) == list(range(100))
    with pytest.raises(FormatError, match=r"the block at \d+ of .*inputs\.0\.log is damaged"):
        reader.tasks(50, 150)


@pytest.mark.unit
def test_a_log_that_is_shorter_than_its_index_says_is_refused(paths: JobPaths) -> None:
    write(paths, [0, 1], [2, 3])
    log = Path(paths.inputs_log(0))
    log.write_bytes(log.read_bytes()[:-1])
    reader = InputReader(paths)
    reader.refresh()

    with pytest.raises(FormatError, match="1 bytes are missing"):
        reader.tasks(2, 4)


@pytest.mark.unit
def test_a_block_with_another_count_is_refused(paths: JobPaths) -> None:
    writer = InputWriter(paths)
    writer.append(payload.dump([1, 2, 3]), 4)
    writer.close()
    reader = InputReader(paths)
    reader.refresh()

    with pytest.raises(FormatError, match="3 inputs, 4 expected"):
        reader.tasks(0, 4)


@pytest.mark.unit
def test_inputs_that_others_can_write_are_refused(paths: JobPaths) -> None:
    write(paths, [1])
    Path(paths.inputs_log(0)).chmod(0o620)
    reader = InputReader(paths)
    reader.refresh()

    with pytest.raises(ShareError, match="are not unpickled"):
        reader.tasks(0, 1)


WRITER = """
import sys
from golem_magic import payload
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.layout import JobPaths
writer = InputWriter(JobPaths(sys.argv[1]))
for number in range(1000):
    block = [(number, k, "x" * (number % 50)) for k in range(number % 7 + 1)]
    writer.append(payload.dump(block), len(block))
writer.close()
"""


def test_another_process_reads_everything_while_it_is_being_written(paths: JobPaths) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, paths.root])
    reader, found, looks = InputReader(paths), [], 0
    deadline = time.monotonic() + 30
    while (total := count_inputs(paths)) is None or len(found) < total:
        assert time.monotonic() < deadline
        staged = reader.refresh()
        looks += staged > len(found)
        found += reader.tasks(len(found), staged)

    assert writer.wait() == 0
    assert found == [(n, k, "x" * (n % 50)) for n in range(1000) for k in range(n % 7 + 1)]
    assert looks > 1


@pytest.mark.unit
@pytest.mark.parametrize("through", [False, True])
def test_what_other_machines_read_along_is_written_through(
    paths: JobPaths, through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log, index and beats stay open: a network file system would send them late, and in any order."""
    flags: dict[str, int] = {}
    real_open = os.open

    def noting(path: str, flag: int, *more: int) -> int:
        flags[os.path.basename(path)] = flag
        return real_open(path, flag, *more)

    monkeypatch.setattr(os, "open", noting)
    writer = InputWriter(paths, through=through)
    writer.append(payload.dump([1]), 1)
    beat = files.BeatWriter(f"{paths.root}/x.beat", through=through)
    beat.close()
    writer.close()
    assert {bool(flag & os.O_DSYNC) for flag in flags.values()} == {through}
    assert {"inputs.0.log", "inputs.idx", "x.beat"} <= set(flags)
