"""A share that misbehaves, in virtual time: exactly one outcome per task, and a job with live workers ends.

Every seed is another schedule: who goes on when, who is killed or stopped, what the share does. A seed
that fails is the whole report: ``play(seed)`` repeats it step by step.
"""

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.faulty_share import FaultyShare, Weather
from fakes.virtual_job import FAST, VirtualJob
from fakes.virtual_time import StuckError, World

from golem_magic import payload
from golem_magic.errors import ShareError
from golem_magic.model import JobState
from golem_magic.share import files, inputs_log, jobs
from golem_magic.share.inputs_log import InputReader, InputWriter

pytestmark = pytest.mark.unit

BLOCK = 10  # seeds of one test


def blocks(n_default: int, n_slow: int) -> list[Any]:
    slow = [pytest.param(number, marks=pytest.mark.slow) for number in range(n_default, n_default + n_slow)]
    return [*range(n_default), *slow]


def each_seed(block: int, play: Callable[[int], Any]) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        try:
            play(seed)
        except BaseException as error:
            error.add_note(f"{play.__name__}({seed})")
            raise


def play(seed: int) -> VirtualJob:
    """A client, its workers, kills and stops of all of them, until the client has read every result."""
    job = VirtualJob(seed)
    with job.running():
        job.start_client()
        job.start_observer()
        job.start_chaos(job.chance.choice((0, 4, 12)))
        job.run()
    return job


@pytest.mark.parametrize("block", blocks(12, 300))
def test_whatever_happens_each_task_gets_one_outcome_and_the_client_reads_them_all(block: int) -> None:
    each_seed(block, play)


def play_alone(seed: int) -> None:
    """Workers without a client, on a share whose troubles are shorter than their patience."""
    job = VirtualJob(seed, weather=Weather.drawn(random.Random(seed), 60.0, longest_spell_s=20.0))
    with job.running():
        job.start_observer()
        for _ in range(job.n_workers):
            job.start_worker()
        job.run_until(lambda: all(keeper.is_over for keeper, _, _ in job.workers))
        assert sorted(job.outcomes()) == list(range(job.n_tasks)), "live workers left the job unfinished"


@pytest.mark.parametrize("block", blocks(6, 100))
def test_live_workers_end_the_job_without_any_client(block: int) -> None:
    each_seed(block, play_alone)


def play_cancel(seed: int) -> None:
    """Somebody cancels at some moment."""
    job = VirtualJob(seed)

    def cancel() -> None:
        job.world.sleep(job.chance.expovariate(1 / 5.0))
        while True:
            try:
                jobs.ask_to_cancel(job.paths)
            except ShareError:
                job.world.sleep(1.0)
            else:
                return

    with job.running():
        job.start_client()
        job.start_observer()
        job.start_chaos(job.chance.choice((0, 4)))
        job.world.start("who cancels", "desk", cancel)
        job.run_until(lambda: bool(job.states) and all(k.is_over or k.is_dead for k, _, _ in job.workers))
        for state in job.states:  # who was stopped for long may publish after a client has gone
            assert state in (JobState.CANCELLED, JobState.DONE)
            assert state is JobState.CANCELLED or len(job.outcomes()) == job.n_tasks


@pytest.mark.parametrize("block", blocks(2, 50))
def test_a_cancelled_job_ends_and_keeps_what_it_has(block: int) -> None:
    each_seed(block, play_cancel)


def test_on_a_good_day_each_task_runs_once_and_nobody_hears_of_trouble() -> None:
    for seed in range(BLOCK):
        job = VirtualJob(seed, weather=Weather())
        with job.running():
            job.start_client()
            job.run()
        assert set(job.executions.values()) == {1}
        assert (job.told, job.log.getvalue(), job.layer.n_faults) == ([], "", 0)


def test_a_seed_is_a_schedule() -> None:
    def trace(seed: int) -> Any:
        job = play(seed)
        return job.world.n_steps, job.world.now, job.layer.n_faults, job.referee.recorded, job.executions

    assert trace(4) == trace(4) != trace(5)


# --- the layer itself: what it does to whom ---


@contextmanager
def faulty(weather: Weather, *rooms: Any, seed: int = 1) -> Iterator[tuple[World, str]]:
    world = World(seed)
    folder = tempfile.mkdtemp(prefix="gm-", dir=FAST)
    try:
        with FaultyShare(folder, world, weather).mounted(*rooms):
            try:
                yield world, folder
            finally:
                world.close()
    finally:
        shutil.rmtree(folder)


def done_by(world: World, *steps: tuple[str, Callable[[], Any]]) -> list[Any]:
    """What each step gave or raised, one after the other, on its host."""
    answers: list[Any] = []

    def do(step: Callable[[], Any]) -> None:
        try:
            answers.append(step())
        except Exception as error:  # noqa: BLE001 - the answer
            answers.append(error)

    for host, step in steps:
        process = world.start("a step", host, lambda step=step: do(step))
        world.run(lambda process=process: process.is_over, latest=world.now + 1e6)
    return answers


def test_a_listing_may_be_a_minute_old_but_shows_what_its_own_host_did() -> None:
    with faulty(Weather(stale=1.0), files) as (world, folder):
        path = f"{folder}/name"
        there = [("a", lambda: files.link("me", path)), ("a", lambda: "name" in files.names(folder))]
        assert done_by(world, *there) == [True, True]
        world.now += 30.0
        seen = done_by(world, *[("b", lambda: "name" in files.names(folder))] * 50)
        assert True in seen
        assert False in seen
        world.now += 61.0
        assert done_by(world, *[("b", lambda: "name" in files.names(folder))] * 50) == [True] * 50


def test_a_name_that_was_not_found_stays_so_for_that_host_until_it_tries_to_create_it() -> None:
    with faulty(Weather(forgotten=1.0), files) as (world, folder):
        path = f"{folder}/name"
        steps = [
            ("b", lambda: files.read_link(path)),
            ("a", lambda: files.link("me", path)),
            ("b", lambda: files.names(folder)),
            ("b", lambda: files.read_link(path)),
            ("c", lambda: files.read_link(path)),
            ("b", lambda: files.link("you", path)),
            ("b", lambda: files.read_link(path)),
        ]
        assert done_by(world, *steps) == [None, True, ["name"], None, "me", False, "me"]


def test_a_lost_reply_answers_exists_and_the_link_is_ours_nevertheless() -> None:
    with faulty(Weather(twice=1.0), files) as (world, folder):
        path = f"{folder}/name"
        again, mine, yours = done_by(
            world,
            ("a", lambda: files.os.symlink("me", f"{folder}/other")),
            ("a", lambda: files.link("me", path)),
            ("b", lambda: files.link("you", path)),
        )
        assert isinstance(again, FileExistsError)
        assert (mine, yours) == (True, False)


def test_an_effect_may_come_with_an_error() -> None:
    with faulty(Weather(lost=1.0), files) as (world, folder):
        (answer,) = done_by(world, ("a", lambda: files.link("me", f"{folder}/name")))
        assert isinstance(answer, OSError)
        assert os.readlink(f"{folder}/name") == "me"


def test_short_writes_and_reads_are_put_together() -> None:
    parts = [random.Random(1).randbytes(size) for size in (1, 5000, 0, 300)]
    with faulty(Weather(short=0.9), files, inputs_log) as (world, folder):
        done_by(world, ("a", lambda: files.create(f"{folder}/file", parts)))
        assert Path(folder, "file").read_bytes() == b"".join(parts)


def test_a_spell_holds_for_its_host_and_its_time() -> None:
    weather = Weather(spells=[(0.0, 50.0, "a", errno.ENOSPC, True)])
    with faulty(weather, files) as (world, folder):
        full, listed, other = done_by(
            world,
            ("a", lambda: files.link("me", f"{folder}/name")),
            ("a", lambda: files.names(folder)),
            ("b", lambda: files.link("me", f"{folder}/name")),
        )
        assert (full.errno, listed, other) == (errno.ENOSPC, [], True)
        world.now = 51.0
        assert done_by(world, ("a", lambda: files.link("me", f"{folder}/more"))) == [True]


def test_a_process_that_was_killed_has_no_effect_any_more() -> None:
    with faulty(Weather(), files) as (world, folder):

        def go_on() -> None:
            for number in range(1000):
                try:
                    files.link("me", f"{folder}/{number}")
                finally:
                    files.touch(f"{folder}/touched-{number}")

        process = world.start("victim", "a", go_on)
        world.run(lambda: world.now > 0.5, latest=1e6)
        world.end(process)
        before = set(os.listdir(folder))
        world.run(lambda: process.is_over, latest=1e6)

        assert 0 < len(before) < 2000
        assert set(os.listdir(folder)) == before


def test_who_waits_for_nothing_is_told_to_be_stuck() -> None:
    world = World(1)
    event = world.threading.Event()
    world.start("waiting", "a", event.wait)
    with pytest.raises(StuckError):
        world.run(lambda: False, latest=10.0)
    world.close()


# --- inputs: all there, or an error that says what could not be written ---


@pytest.mark.parametrize("seed", range(20))
def test_inputs_are_written_in_full_or_the_error_names_the_file(seed: int) -> None:
    """A full disk may show at closing only; what the index has let workers see stays readable."""
    chance = random.Random(seed)
    rate = chance.choice(("trouble", "lost", "late"))
    weather = Weather(short=0.5, **{rate: 0.03})
    with faulty(weather, files, inputs_log, seed=seed) as (world, folder):
        paths = jobs.JobPaths(folder)
        os.mkdir(paths.control)

        def write() -> int:
            writer = InputWriter(paths, segment_bytes=100)
            for start in range(0, 40, 4):
                writer.append(payload.dump(list(range(start, start + 4))), 4)
            writer.close()
            return writer.staged

        (answer,) = done_by(world, ("desk", write))
        reader = InputReader(paths)
        staged = reader.refresh()
        assert reader.tasks(0, staged) == list(range(staged))
        if isinstance(answer, Exception):
            assert isinstance(answer, ShareError), repr(answer)
            assert folder in str(answer)
        else:
            assert (answer, staged, inputs_log.count_inputs(paths)) == (40, 40, 40)
