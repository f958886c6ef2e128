"""One task takes far longer than its neighbours: what was leased with it does not wait for it."""

from pathlib import Path

import pytest
from worker.running_worker import make_job, wait_until


@pytest.mark.meets("GM-18")
@pytest.mark.parametrize("straggler", [3, 43], ids=["in its first lease", "when its pace is known"])
def test_the_rest_of_a_late_lease_goes_to_who_has_nothing_to_do(share: Path, straggler: int) -> None:
    """The end of the job is cut off behind the task that runs; nothing is run twice for it."""
    gate = share.parent / "gate"
    task = (
        "def task(x):\n    limit = time.monotonic() + 60\n"
        "    while x == straggler and not os.path.exists(gate) and time.monotonic() < limit:\n"
        "        time.sleep(0.005)\n"
        "    return x"
    )
    job = make_job(share, task, range(60), workers=2, chunk_size=20, gate=str(gate), straggler=straggler)

    with job.worker(0) as one, job.worker(1) as other:
        wait_until(lambda: len(job.outcomes()) == 59, "all but the straggler", 30)
        assert straggler not in job.outcomes()
        gate.touch()
        assert (one.wait(30), other.wait(30)) == (0, 0)

    assert job.outcomes() == {x: x for x in range(60)}
    assert set(job.calls.values()) == {1}
