"""Nothing is unpickled that somebody else could have written, or put in the place of what was written."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from golem_magic import payload
from golem_magic.errors import FormatError, ShareError
from golem_magic.model import Failure, JobId, WorkerId
from golem_magic.share import jobs, outcome_files, retries, store
from golem_magic.share.inputs_log import InputReader, InputWriter
from golem_magic.share.layout import Done, JobPaths, SharePaths, parse_entry

pytestmark = pytest.mark.unit
NOBODY = 65534
ID = "a" * 32
FAR_S = 30
with_checksum = pytest.mark.parametrize(
    "stored", ["an_object", "inputs", "inputs_index", "outcomes"], indirect=True
)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


class Mark:
    """Whoever unpickles this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@dataclass
class Stored:
    """Something on the share that is unpickled when it is read."""

    file: Path
    read: Callable[[], object]
    other: Path  # as valid, of the same kind
    mark: Path


def an_object(share: SharePaths, _: JobPaths, mark: Mark, other: Mark) -> tuple[str, Any, str]:
    digest = store.put(share, payload.dump(mark))
    another = share.object(store.put(share, payload.dump(other)))
    return share.object(digest), lambda: payload.load(store.get(share, digest)), another


def inputs(share: SharePaths, job: JobPaths, mark: Mark, other: Mark) -> tuple[str, Any, str]:
    another = share.job(JobId("b" * 32))
    jobs.make_job(another, manifest("b" * 32))
    for paths, value in ((job, mark), (another, other)):
        writer = InputWriter(paths)
        writer.append(payload.dump([value]), 1)
        writer.close()
    reader = InputReader(job)
    return job.inputs_log(0), lambda: (reader.refresh(), reader.tasks(0, 1)), another.inputs_log(0)


def inputs_index(share: SharePaths, job: JobPaths, mark: Mark, other: Mark) -> tuple[str, Any, str]:
    _, read, another = inputs(share, job, mark, other)
    return job.inputs_index, read, another.replace("inputs.0.log", "inputs.idx")


def outcomes(_: SharePaths, job: JobPaths, mark: Mark, other: Mark) -> tuple[str, Any, str]:
    targets = [
        outcome_files.write(job, 0, payload.dump(([value], {})), (1, 0), writer)
        for value, writer in ((mark, "w-0-1234"), (other, "w-1-1234"))
    ]
    entry, another = map(parse_entry, targets)
    assert isinstance(entry, Done)
    assert isinstance(another, Done)
    return f"{job.data}/{entry.file}", lambda: outcome_files.read(job, entry), f"{job.data}/{another.file}"


def a_failure(_: SharePaths, job: JobPaths, mark: Mark, other: Mark) -> tuple[str, Any, str]:
    failure = Failure(
        kind="raised", exception=None, type_name="E", message="", traceback="", host="h", worker="w"
    )
    outcome_files.write_fatal(job, WorkerId("w-0-1234"), failure)
    for worker, value in (("w-0-1234", mark), ("w-1-1234", other)):
        Path(job.failure(WorkerId(worker))).write_bytes(b"".join(payload.dump(value).parts))
        os.chmod(job.failure(WorkerId(worker)), 0o600)
    return (
        job.failure(WorkerId("w-0-1234")),
        lambda: outcome_files.read_fatal(job),
        job.failure(WorkerId("w-1-1234")),
    )


KINDS = {each.__name__: each for each in (an_object, inputs, inputs_index, outcomes, a_failure)}


def manifest(job_id: str) -> jobs.Manifest:
    return jobs.Manifest(
        job_id=JobId(job_id),
        function_name="f",
        label="",
        python="3.11",
        function=store.Digest("12"),
        common=None,
        star=False,
        workers=2,
        chunk_size=None,
        beat_s=1.0,
        lease_s=2.0,
        max_attempts=3,
        created_s=0.0,
        on_error="raise",
        host="here",
        engine="local",
        folder="",
        uid=os.getuid(),
    )


@pytest.fixture
def paths(share: Path) -> SharePaths:
    return jobs.make_share(str(share))


@pytest.fixture
def job(paths: SharePaths) -> JobPaths:
    made = paths.job(JobId(ID))
    jobs.make_job(made, manifest(ID))
    return made


@pytest.fixture(params=list(KINDS))
def stored(request: pytest.FixtureRequest, paths: SharePaths, job: JobPaths, tmp_path: Path) -> Stored:
    mark = tmp_path / "it was unpickled"
    file, read, other = KINDS[request.param](paths, job, Mark(mark), Mark(tmp_path / "so was the other one"))
    return Stored(Path(file), read, Path(other), mark)


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """A reader that waits for the writer of a pipe would do so for ever."""

    def wake(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(FAR_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def aside(file: Path) -> Path:
    return file.rename(file.with_name("aside"))


def give_away(file: Path) -> None:
    os.chown(file, NOBODY, -1)


def let_the_group_write(file: Path) -> None:
    file.chmod(0o660)


def let_everybody_write(file: Path) -> None:
    file.chmod(0o602)


def link_symbolically(file: Path) -> None:
    file.symlink_to(aside(file))


def link_hard(file: Path) -> None:
    os.link(file, file.with_name("aside"))


def be_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def be_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir(mode=0o700)


def be_a_socket(file: Path) -> None:
    file.unlink()
    before = Path.cwd()
    os.chdir(file.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"./{file.name[:90]}")
            os.rename(file.name[:90], file.name)
    finally:
        os.chdir(before)


DAMAGES = [
    pytest.param(give_away, marks=only_root),
    let_the_group_write,
    let_everybody_write,
    link_symbolically,
    link_hard,
    be_a_pipe,
    be_a_folder,
    be_a_socket,
]


def test_what_nobody_touched_is_unpickled(stored: Stored) -> None:
    """The other tests would pass as well if nothing ever left a mark."""
    try:
        stored.read()
    except FormatError as error:
        assert "holds no failure" in str(error)  # noqa: PT017 - only that kind of file minds what it holds
    assert stored.mark.is_dir()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_ours_alone_is_refused_by_its_name(
    stored: Stored, damage: Callable[[Path], None]
) -> None:
    damage(stored.file)

    with pytest.raises(ShareError) as caught:
        stored.read()

    assert str(stored.file) in str(caught.value).replace("\\", "")
    assert "\n" not in str(caught.value).replace(str(stored.file), "")
    assert not stored.mark.exists()


@only_root
def test_the_file_that_was_opened_is_judged_and_not_its_name(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts our own file back between opening theirs and asking whose it is."""
    ours = stored.file.with_name("ours")
    ours.write_bytes(stored.file.read_bytes())
    ours.chmod(0o600)
    os.chown(stored.file, NOBODY, -1)
    really_open = os.open

    def opens(path: Any, *how: Any, **more: Any) -> int:
        fd = really_open(path, *how, **more)
        if str(path) == str(stored.file) and ours.exists():
            os.rename(ours, stored.file)
        return fd

    monkeypatch.setattr(os, "open", opens)
    with pytest.raises(ShareError, match=f"belongs to uid {NOBODY}"):
        stored.read()

    assert not ours.exists(), "it was not opened by its name"
    assert not stored.mark.exists()


@with_checksum
def test_another_whole_file_of_ours_in_its_place_is_refused(stored: Stored) -> None:
    os.replace(stored.other, stored.file)

    with pytest.raises(FormatError):
        stored.read()

    assert not stored.mark.exists()
    assert not stored.mark.with_name("so was the other one").exists()


@with_checksum
@pytest.mark.parametrize("at", [0, 5, 64, 70, -30, -1])
def test_a_file_with_a_wrong_bit_is_refused(stored: Stored, at: int) -> None:
    data = bytearray(stored.file.read_bytes())
    data[at % len(data)] ^= 4
    stored.file.write_bytes(data)

    if stored.file.suffix == ".idx":  # such a record is not there yet
        with pytest.raises(IndexError):
            stored.read()
    else:
        with pytest.raises(FormatError, match=stored.file.name):
            stored.read()

    assert not stored.mark.exists()


# --- the manifest ---


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_manifest_that_is_not_ours_alone_is_refused(job: JobPaths, damage: Callable[[Path], None]) -> None:
    digest = jobs.manifest_digest(job)
    damage(Path(job.manifest))

    for read in (
        lambda: jobs.read_manifest(job),
        lambda: jobs.read_manifest(job, digest),
        lambda: jobs.manifest_digest(job),
    ):
        with pytest.raises(ShareError, match=r"manifest\.json"):
            read()


# --- folders ---


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o2775])
@pytest.mark.parametrize("which", ["root", "jobs", "objects", "runtimes"])
def test_a_share_that_others_can_write_is_refused_with_the_remedy(
    paths: SharePaths, which: str, mode: int
) -> None:
    os.chmod(getattr(paths, which), mode)

    with pytest.raises(ShareError, match=r"others can write .* chmod go-w"):
        jobs.make_share(paths.root)


@only_root
@pytest.mark.parametrize("which", ["root", "jobs", "objects", "runtimes"])
def test_a_share_of_somebody_else_is_refused(paths: SharePaths, which: str) -> None:
    os.chown(getattr(paths, which), NOBODY, -1)

    with pytest.raises(ShareError, match=f"belongs to uid {NOBODY}"):
        jobs.make_share(paths.root)


def test_a_share_may_lie_where_everybody_can_make_but_not_replace_names(paths: SharePaths) -> None:
    os.chmod(paths.root, 0o1777)

    jobs.make_share(paths.root)


def test_a_job_that_others_can_write_is_refused(job: JobPaths) -> None:
    os.chmod(job.root, 0o770)

    with pytest.raises(ShareError, match="chmod go-w"):
        jobs.read_manifest(job)


# --- links that lead out of the folder ---


@pytest.mark.parametrize(
    "target", ["../../data/../x", "../../data//etc/passwd", "../../data/0-1.0.1.0.w/../../../x"]
)
def test_an_entry_that_leads_out_of_the_folder_is_none(target: str) -> None:
    with pytest.raises(FormatError, match="is no entry"):
        parse_entry(target)


@pytest.mark.parametrize(
    "target", ["../../x.failed", "/x.failed", "../workers/../../x.failed", "../workers/x.log"]
)
def test_a_failure_that_leads_out_of_the_folder_is_refused(
    job: JobPaths, tmp_path: Path, target: str
) -> None:
    for place in (Path(job.control) / "../../x.failed", tmp_path / "x.failed", Path(job.workers) / "x.log"):
        place.write_bytes(b"".join(payload.dump(Mark(tmp_path / "mark")).parts))
        place.chmod(0o600)
    os.symlink(
        target.replace("/x.failed", f"{tmp_path}/x.failed") if target[0] == "/" else target, job.failed
    )

    with pytest.raises(FormatError, match="points at"):
        outcome_files.read_fatal(job)

    assert not (tmp_path / "mark").exists()


def test_a_retry_that_leads_out_of_the_folder_is_none(job: JobPaths) -> None:
    os.symlink("../elsewhere", f"{job.control}/retry-0")
    os.symlink("b" * 32, f"{job.control}/retry-1")

    assert retries.found(job) == ["b" * 32]
