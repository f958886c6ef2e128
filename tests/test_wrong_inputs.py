"""Whatever is wrong with a map is told on one line: before anything is written where that can be known."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.golem_double import GolemDouble
from fakes.world import embedded_client

from golem_magic import Client, GolemMagicError, InfiniteRecursionError, NoWorkersError, SettingsError
from golem_magic.errors import PayloadError, ShareError, TaskError
from golem_magic.model import JobState

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("wrong")) as client:
        yield client


def jobs_of(client: Client) -> set[str]:
    folder = Path(str(client.settings.share)) / "jobs"
    return set(os.listdir(folder)) if folder.is_dir() else set()


def told(caught: pytest.ExceptionInfo[Any]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def identity(x: Any) -> Any:
    return x


async def wait(x: int) -> int:
    return x


WRONG: dict[str, tuple[Callable[[Client], Any], type[GolemMagicError], str]] = {
    "arity": (
        lambda c: c.map(identity, [1], common=2),
        SettingsError,
        "identity cannot be called with 2 arguments",
    ),
    "arity, starred": (lambda c: c.map(identity, [(1, 2)], star=True), SettingsError, "with 2 arguments"),
    "no function": (lambda c: c.map([1, 2], identity), SettingsError, "[1, 2] cannot be called"),
    "async": (lambda c: c.map(wait, [1]), SettingsError, "wait is an async function"),
    "no iterable": (lambda c: c.map(identity, 5), PayloadError, "inputs of type int cannot be iterated over"),
    "a function as inputs": (lambda c: c.map(identity, range), PayloadError, "inputs of type type cannot"),
    "an unknown option": (
        lambda c: c.map(identity, [1], chunksize=3),
        SettingsError,
        "did you mean 'chunk_size'?",
    ),
    "chunk size 0": (lambda c: c.map(identity, [1], chunk_size=0), SettingsError, "chunk_size is 0: give"),
    "chunk size -1": (lambda c: c.map(identity, [1], chunk_size=-1), SettingsError, "chunk_size is -1: give"),
    "chunk size ten": (
        lambda c: c.map(identity, [1], chunk_size="ten"),
        SettingsError,
        "chunk_size is 'ten': give",
    ),  # type: ignore[arg-type]
    "an engine": (lambda c: c.map(identity, [1], engine="locl"), SettingsError, "locl"),
    "an input": (lambda c: c.map(identity, [sys._getframe()]), PayloadError, "input 0 "),
    "common data": (lambda c: c.map(max, [1], common=sys._getframe()), PayloadError, "common data"),
}


@pytest.mark.meets("G-01", "G-28")
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("more", ["at once", "streamed"])
def test_a_wrong_map_is_told_on_one_line_and_nothing_is_submitted(
    client: Client, what: str, more: str
) -> None:
    do, kind, message = WRONG[what]
    before = jobs_of(client)
    if more == "streamed":
        plain = client.map
        do_plain, do = do, lambda _: do_plain(_Streaming(plain))

    with pytest.raises(kind) as caught:
        do(client)

    assert message in told(caught)
    assert jobs_of(client) == before


class _Streaming:
    """Maps with ``stream=True``."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self._plain = plain

    def map(self, *arguments: Any, **options: Any) -> Any:
        return self._plain(*arguments, stream=True, **options)


def test_several_faults_of_a_settings_file_are_told_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    monkeypatch.setenv("GOLEM_MAGIC_CONFIG", str(file))
    file.write_text(json.dumps({"workers": 0, "engin": "golem", "server_verify": "perhaps"}))
    with pytest.raises(SettingsError) as caught:
        Client()
    for word in ("workers", "engin", "server_verify", str(file)):
        assert word in str(caught.value)

    file.write_text('{"workers": 3,}')
    with pytest.raises(SettingsError, match=r"config\.json") as caught:
        Client()
    assert told(caught)


@pytest.mark.parametrize("engine", ["slurn", "locale", "Golem"])
def test_an_unknown_engine_is_told_with_those_there_are(share: Path, engine: str) -> None:
    with pytest.raises(SettingsError) as caught, Client(engine=engine, share=share) as client:
        client.map(identity, [1])

    assert f"engine {engine!r}" in told(caught)
    assert "golem, local" in told(caught)


@pytest.mark.meets("G-26")
@pytest.mark.parametrize("more", [{}, {"setup": dict}], ids=["task", "set-up"])
def test_no_job_is_started_from_inside_a_task_or_its_set_up(client: Client, more: dict[str, Any]) -> None:
    def inner(*_: object) -> None:
        import golem_magic

        golem_magic.golem_map(abs, [1])

    before = jobs_of(client)
    options: dict[str, Any] = {"setup": inner} if more else {}
    results = client.map((lambda x, _: x) if more else inner, [1], **options)

    with pytest.raises(InfiniteRecursionError, match="tried to start a job of its own") as caught:
        list(results)
    assert told(caught)
    assert len(jobs_of(client) - before) == 1


@pytest.mark.meets("G-27")
def test_a_module_that_is_missing_over_there_is_every_tasks_error_with_advice(client: Client) -> None:
    class Needs:
        """Unpickles to a call of what only an installed package would have."""

        def __call__(self, x: int) -> int:
            return x

        def __reduce__(self) -> Any:
            return __import__, ("no_such_package_at_all",)

    results = client.map(Needs(), range(3), on_error="return")

    for error in results:
        assert "no_such_package_at_all" in str(error)
        assert "probably a package is missing there: install it for the workers' Python" in str(error)


@pytest.mark.meets("G-18", "G-20")
def test_what_a_dead_task_leaves_is_told_and_the_rest_can_be_read(client: Client) -> None:
    results = client.map(lambda x: os._exit(7) if x == 2 else x, range(5), chunk_size=1)

    each = iter(results)
    assert (next(each), next(each)) == (0, 1)
    with pytest.raises(
        TaskError, match=r"task 2 gave no outcome: the worker ended with exit code 7 while"
    ) as caught:
        next(each)
    assert "peak memory" in told(caught)
    assert list(each) == [3, 4]


# --- the share ---


@pytest.mark.meets("GR-12")
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/proc/nowhere/share", "the folder is missing, create it"),
        ("FILE", "it is no folder, choose another share"),
    ],
)
def test_a_share_that_cannot_be_made_is_named(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "a file").touch()
    place = place.replace("FILE", str(tmp_path / "a file"))

    with pytest.raises(ShareError) as caught, embedded_client(tmp_path, share=place) as client:
        client.map(identity, [1])

    assert place in told(caught)
    assert message in told(caught)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory; skips the test where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_share_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "ro") as disk,
        pytest.raises(ShareError, match="Read-only file system") as caught,
        embedded_client(tmp_path, share=disk) as client,
    ):
        client.map(identity, [1])

    assert str(disk) in told(caught)
    assert "choose another share" in told(caught)


@pytest.mark.parametrize("size_kb", [64, 1024])
def test_a_share_that_is_full_is_told_whatever_did_not_fit(tmp_path: Path, size_kb: int) -> None:
    """The runtime does not fit, or the inputs do not."""
    with (
        small_disk(tmp_path / "disk", f"size={size_kb}k") as disk,
        pytest.raises(ShareError, match="No space left on device") as caught,
        embedded_client(tmp_path, share=disk) as client,
    ):
        client.map(len, (os.urandom(100_000) for _ in range(50)))

    assert str(disk) in told(caught)
    assert "the disk is full, free space there or choose another share" in told(caught)


# --- what only the first placement can find ---


def interpreter(folder: Path, *lines: str) -> str:
    """A program that is given as ``python`` and runs ``lines``, then the real one."""
    program = folder / "python"
    program.write_text("\n".join([f"#!{sys.executable}", "import os, sys", *lines, ""]))
    program.chmod(0o755)
    return str(program)


def hiding(share: Path, folder: Path) -> str:
    """An interpreter that sees the share nowhere, as on a node that did not mount it."""
    return interpreter(
        folder,
        f"words = [word.replace({str(share)!r}, '/mnt/not/mounted') for word in sys.argv[1:]]",
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *words])",
    )


def older(_share: Path, folder: Path) -> str:
    """An interpreter that says it is Python 3.9."""
    return interpreter(
        folder,
        "import runpy",
        "sys.version_info, sys.argv = (3, 9, 1, 'final', 0), sys.argv[1:]",
        "runpy.run_path(sys.argv[0], run_name='__main__')",
    )


def missing(_share: Path, _folder: Path) -> str:
    return "/opt/no such/python3.11"


def unknown(_share: Path, _folder: Path) -> str:
    return "python-that-nobody-has"


VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
FOUND_LATE: dict[str, tuple[Callable[[Path, Path], str], list[str]]] = {
    "the share is not seen": (
        hiding,
        ["/mnt/not/mounted", "No such file", "the share {share} is not to be seen"],
    ),
    "another version": (
        older,
        ["this worker runs Python 3.9", f"the notebook {VERSION}", "set the setting `python`"],
    ),
    "no interpreter": (missing, ["/opt/no such/python3.11 is not there", "set `python`"]),
    "no interpreter in the path": (unknown, ["python-that-nobody-has is not there", "set `python`"]),
}


@pytest.mark.meets("IP-14")
@pytest.mark.parametrize("engine", ["golem", "local"])
@pytest.mark.parametrize("what", FOUND_LATE)
def test_what_only_a_worker_can_find_is_explained_within_seconds(
    share: Path, tmp_path: Path, what: str, engine: str
) -> None:
    make, messages = FOUND_LATE[what]
    python = make(share, tmp_path)
    with _world(engine, tmp_path, share=share, python=python) as client:
        began = time.monotonic()
        results = client.map(identity, range(10))
        with pytest.raises(NoWorkersError) as caught:
            list(results)

    assert time.monotonic() - began < 10
    for message in messages:
        assert message.format(share=share) in told(caught)
    assert results.progress.state is JobState.FAILED
    assert results.progress.note == str(caught.value)


@contextmanager
def _world(engine: str, folder: Path, **settings: Any) -> Iterator[Client]:
    if engine == "local":
        with embedded_client(folder, **settings) as client:
            yield client
        return
    with (
        GolemDouble(folder / "golem", password=PASSWORD) as golem,
        Client(engine="golem", server_url=golem.url, server_password=PASSWORD, **settings) as client,
    ):
        yield client
