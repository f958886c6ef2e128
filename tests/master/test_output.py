"""What tasks print: whole lines, each of stderr's under its command, each once."""

import sys
from pathlib import Path

import pytest
from master.running_master import Master, running_master, wait_until


def header(job_id: str, number: int, script: str) -> str:
    return f'TASK : "/bin/sh-c {script} {job_id} 0 {number}" ERRORED: '


@pytest.mark.meets("GM-16")
def test_each_line_on_stderr_stands_under_its_command(master: Master) -> None:
    script = "echo one >&2; echo; printf 'two' >&2; exit 0"
    job_id = master.submit((2, ["sh", "-c", script]))
    master.wait_for_end(job_id)

    lines = master.output(job_id, "err")

    which = next(path for path in map(Path, ("/usr/bin/sh", "/bin/sh")) if path.exists())
    headers = [header(job_id, number, script).replace("/bin/sh", str(which)) for number in (0, 1)]
    assert sorted(zip(lines[::2], lines[1::2], strict=True)) == sorted(
        (each, text) for each in headers for text in ("one", "two")
    )
    assert master.output(job_id, "out") == ["", ""]


@pytest.mark.meets("GM-16")
def test_lines_of_tasks_side_by_side_stay_whole(state_dir: Path) -> None:
    # Python writes its buffer of 8192 bytes when it is full, in the middle of a line.
    code = "import sys; n = sys.argv[3]\nfor _ in range(3000): print(n * 37, file=sys.stdout)"
    with running_master(state_dir, slots=4) as master:
        job_id = master.submit((4, [sys.executable, "-S", "-c", code]))
        master.wait_for_end(job_id)

        lines = master.output(job_id, "out")
    assert {line: lines.count(line) for line in set(lines)} == {str(n) * 37: 3000 for n in range(4)}


@pytest.mark.meets("GM-16")
def test_output_can_be_read_while_the_task_runs_and_comes_once(state_dir: Path, tmp_path: Path) -> None:
    script = (
        f'echo first; echo hint >&2; printf half; : > "{tmp_path}/printed";'
        f' while [ ! -e "{tmp_path}/release" ]; do sleep 0.01; done; echo " line"'
    )
    with running_master(state_dir) as first:
        job_id = first.submit((1, ["/bin/sh", "-c", script]))
        wait_until((tmp_path / "printed").exists, "the task's lines")
        for _ in range(2):
            assert first.output(job_id, "out") == ["first"]
            assert first.output(job_id, "err") == [header(job_id, 0, script), "hint"]
        first.process.kill()
        first.process.wait()

    with running_master(state_dir) as second:
        assert second.output(job_id, "out") == ["first"]
        (tmp_path / "release").touch()
        second.wait_for_end(job_id)
        assert second.output(job_id, "out") == ["first", "half line"]
        assert len(second.output(job_id, "err")) == 2
    assert list((state_dir / "tasks").iterdir()) == []


@pytest.mark.meets("GM-16")
def test_a_long_line_arrives_whole(master: Master) -> None:
    script = (
        "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; head -c 2500000 /dev/zero | tr '\\0' y >&2"
    )
    job_id = master.submit((1, ["/bin/sh", "-c", script]))
    master.wait_for_end(job_id)

    assert master.output(job_id, "out") == ["x" * 3_000_000, "end"]
    assert master.output(job_id, "err")[1:] == ["y" * 2_500_000]
