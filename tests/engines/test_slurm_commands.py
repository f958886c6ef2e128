"""The engine on Slurm with commands that misbehave: scripts that say what real ones were heard to say."""

from pathlib import Path

import pytest
from engines.engine_contract import NOBODY, new_id

from golem_magic.engines.slurm import SlurmEngine
from golem_magic.errors import EngineError
from golem_magic.model import NativeId, WorkerSpec


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def command(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_a_refusal_carries_slurms_own_words(bin_folder: Path) -> None:
    command(bin_folder, "squeue", "")
    command(bin_folder, "scontrol", "echo 'MaxArraySize            = 1001'")
    said = (
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\\nsbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    )
    command(bin_folder, "sbatch", f'printf "{said}\\n" >&2; exit 1')

    with pytest.raises(
        EngineError, match=r"QOSMaxSubmitJobPerUserLimit.*lower the setting workers"
    ) as caught:
        SlurmEngine().submit(WorkerSpec(argv=("x",), count=1, native_id=new_id()))

    assert not caught.value.transient
    assert "\n" not in str(caught.value)


def test_an_answer_that_was_lost_is_found_and_nothing_is_submitted_again(bin_folder: Path) -> None:
    spec = WorkerSpec(argv=("x",), count=3, native_id=NativeId("lost"))
    queue = bin_folder / "queue"
    command(bin_folder, "squeue", f"cat {queue} 2>/dev/null; true")
    command(bin_folder, "scontrol", "echo 'MaxArraySize            = 1001'")
    lines = "".join(f"7|{index}|PENDING|Priority|gm-lost.3\\n" for index in range(3))
    broken = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    command(bin_folder, "sbatch", f'printf "{lines}" >>{queue}; echo "{broken}" >&2; exit 1')
    engine = SlurmEngine()
    with pytest.raises(EngineError) as caught:
        engine.submit(spec)
    assert caught.value.transient

    assert engine.submit(spec) == spec.native_id

    assert engine.poll([spec.native_id])[spec.native_id].n_workers == 3
    assert len(queue.read_text().splitlines()) == 3, "it was submitted once"


def test_an_array_is_no_longer_than_slurm_allows_and_the_poll_tells(bin_folder: Path) -> None:
    queue, words = bin_folder / "queue", bin_folder / "words"
    command(bin_folder, "squeue", f"cat {queue} 2>/dev/null; true")
    command(bin_folder, "scontrol", "echo 'MaxArraySize            = 4'")
    command(bin_folder, "sbatch", f'printf "%s\\n" "$@" >{words}; echo "7;cluster"')
    engine = SlurmEngine("--array=0-9 --job-name=mine --output=/x")
    spec = WorkerSpec(argv=("x",), count=5, native_id=NativeId("long"))

    engine.submit(spec)

    said = words.read_text().splitlines()
    assert [word for word in said if word.startswith("--array")][-1] == "--array=0-2"
    assert [word for word in said if word.startswith("--job-name")][-1] == "--job-name=gm-long.3"
    assert [word for word in said if word.startswith("--output")][-1] == "--output=/x", "people may"
    queue.write_text("".join(f"7|{index}|RUNNING|None|gm-long.3\n" for index in range(3)))
    assert engine.poll([spec.native_id])[spec.native_id].n_workers == 3


def test_a_command_that_never_ends_is_a_passing_fault(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golem_magic.engines.batch.TIMEOUT_S", 0.3)
    command(bin_folder, "squeue", "echo 'cannot stat file, retrying' >&2; exec sleep 60")

    with pytest.raises(EngineError, match=r"squeue has not ended within .* retrying") as caught:
        SlurmEngine().poll([NOBODY])

    assert caught.value.transient


def test_a_question_that_fails_means_that_nothing_is_known(bin_folder: Path) -> None:
    command(bin_folder, "squeue", "echo 'squeue: error: a word never heard' >&2; exit 1")

    with pytest.raises(EngineError, match="a word never heard") as caught:
        SlurmEngine().poll([NOBODY])

    assert caught.value.transient


def test_those_who_have_ended_cannot_be_cancelled_which_is_no_error(bin_folder: Path) -> None:
    command(bin_folder, "squeue", "echo '7|0|RUNNING|None|gm-x.1'")
    command(
        bin_folder, "scancel", "echo 'scancel: error: Kill job error on job id 7: Invalid job id' >&2; exit 1"
    )

    SlurmEngine().cancel([NativeId("x")])

    command(bin_folder, "scancel", "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(EngineError, match="Unable to contact"):
        SlurmEngine().cancel([NativeId("x")])


@pytest.mark.meets("IP-14")
def test_without_its_commands_the_engine_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineError, match=r"no command sbatch here.*slurm-client") as caught:
        SlurmEngine().n_slots()

    assert not caught.value.transient
