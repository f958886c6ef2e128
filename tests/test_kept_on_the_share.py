"""What stays on the share of a job that has ended, how long, and what goes by itself."""

import os
import threading
import time
from pathlib import Path

import pytest
from engines.engine_contract import wait_until
from fakes.world import embedded_client

from golem_magic import Client

DAY_S = 86_400


def folder_of(client: Client, job_id: str) -> Path:
    return Path(f"{client.settings.share}/jobs/{job_id}")


def make_old(folder: Path, days: float) -> None:
    then = time.time() - days * DAY_S
    for path in (folder, *folder.rglob("*")):
        if path.suffix == ".held":  # which is younger than its process
            continue
        os.utime(path, (then, then), follow_symlinks=False)


def by_itself() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "golem-clean"]


@pytest.mark.meets("GR-12")
def test_logs_stay_as_long_as_their_job_which_stays_while_it_is_held(tmp_path: Path) -> None:
    def complain(x: int) -> float:
        print("about to divide")
        return 1 / x

    with embedded_client(tmp_path) as client:
        results = client.map(complain, [0], on_error="return")
        assert isinstance(results[0], ZeroDivisionError)
        results.wait()
        folder = folder_of(client, results.job_id)
        make_old(folder, 100)

        held = client.inventory.clean(older_days=0)
        said = repr(results.logs())
        del results
        gone = client.inventory.clean(older_days=0)

    assert held.kept == {"a program holds its results": 1}
    assert "about to divide" in said
    assert [each.job_id for each in gone.gone] == [folder.name]
    assert not folder.exists()


def test_old_jobs_go_by_themselves_once_a_day_unless_that_is_switched_off(tmp_path: Path) -> None:
    with embedded_client(tmp_path) as client, embedded_client(tmp_path, auto_clean=False) as forbidden:
        old = folder_of(client, client.map(abs, [-1]).job_id)
        wait_until(lambda: not client.jobs()[0].n_running and client.jobs()[0].n_done == 1, "its end", 20)
        trash = Path(f"{client.settings.share}/trash")
        make_old(old, 31)
        assert client.map(abs, [-2]).to_list() == [2]
        assert by_itself() == []  # its first day has not passed
        make_old(trash, 2)
        assert forbidden.map(abs, [-3]).to_list() == [3]
        assert (by_itself(), old.exists()) == ([], True)

        assert client.map(abs, [-4]).to_list() == [4]
        wait_until(lambda: not old.exists() and not by_itself(), "the end of the old job", 20)

        assert len(list(old.parent.iterdir())) == 3
        assert time.time() - trash.stat().st_mtime < DAY_S
