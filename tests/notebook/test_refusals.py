"""Every wrong input to a magic, with the real client: one line, and nothing is submitted or started."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from golem_magic.magics import load

Run: TypeAlias = Callable[[str], Any]
Refusal: TypeAlias = Callable[[str], str]
Shell: TypeAlias = Any  # an InteractiveShell, which is typed in parts only

DEFINITIONS = """
import functools, threading
def plain(x): return x
def two(x, y): return x, y
def none(): return 0
async def later(x): return x
class Asynchronous:
    async def __call__(self, x): return x
partly_later = functools.partial(later)
lock = threading.Lock()
xs, number = [1, 2], 3
"""

WRONG = [
    # the line
    ("%golem_map plain xs --chunksize 3", "unknown option --chunksize, did you mean --chunk-size?"),
    ("%%golemize xs --wiat\ndef f(x): ...", "unknown option --wiat, did you mean --wait?"),
    ("%golem_map plain xs --cache", "--cache is not available yet"),
    ("%golem_map plain", "INPUTS are missing behind FUNCTION plain"),
    ("%golem_map plain xs ys", "INPUTS is not an expression: xs ys"),
    ("%golem_map plain xs --on-error ignore", "allowed: raise, return, skip or stop"),
    ("%golem_map plain xs -o 1x", "'1x' cannot name a variable: use letters, digits and _"),
    ("%golem_map plain xs -o a.b", "'a.b' cannot name a variable"),
    ("%%golemize xs -o lambda\ndef f(x): ...", "'lambda' cannot name a variable: it is a keyword"),
    # values
    ("%golem_map plain xs --chunk-size 0", "chunk_size is 0: give a whole number from 1 up"),
    ("%golem_map plain xs --chunk-size -1", "chunk_size is -1: give a whole number from 1 up"),
    ("%golem_map plain xs --chunk-size ten", "--chunk-size is 'ten', allowed: a whole number or auto"),
    ("%golem_map plain xs --workers 0", "workers is 0: give a whole number from 1 up"),
    ("%golem_map plain xs --timeout -1", "timeout is -1.0: give seconds above 0"),
    ("%golem_map plain xs --retry-on 3", "retry_on is 3: give an exception class, a tuple of them"),
    ("%golem_map two xs --setup plain", "setup cannot be called without arguments"),
    ("%golem_map two xs --setup number", "setup is 3, which cannot be called"),
    # names
    ("%golem_map plian xs", "plian is not defined, did you mean plain?"),
    ("%golem_map plain numbr", "numbr is not defined, did you mean number?"),
    ("%golem_map two xs -c nosuch", "nosuch is not defined"),
    ("%golem_map two xs --setup nosuch", "nosuch is not defined"),
    ("%%golemize nosuch + 1\ndef f(x): ...", "nosuch is not defined (in nosuch + 1)"),
    ("%%golemize xs -f g\ndef f(x): ...", "the cell does not define g"),
    # functions and inputs
    ("%golem_map number xs", "number cannot be mapped: it is a int, not a function"),
    ("%golem_map later xs", "later is an async def and cannot be mapped"),
    ("%golem_map partly_later xs", "is an async"),
    ("%golem_map Asynchronous() xs", "Asynchronous is an async function"),
    (
        "%%golemize xs\nasync def f(x): ...",
        "async def f cannot be mapped: write a def that calls asyncio.run",
    ),
    ("%golem_map plain number", "inputs of type int cannot be iterated over"),
    ("%%golemize number\ndef f(x): ...", "inputs of type int cannot be iterated over"),
    ("%golem_map two xs", "two cannot be called with 1 argument (missing a required argument: 'y')"),
    ("%golem_map plain xs -c 1", "plain cannot be called with 2 arguments, the common data last"),
    ("%golem_map none xs", "none cannot be called with 1 argument (too many positional arguments)"),
    ("%golem_map two [(1, 2, 3)] --star", "two cannot be called with 3 arguments"),
    ("%golem_map plain xs --setup none", "plain cannot be called with 2 arguments, the set-up value last"),
    ("%golem_map (lambda x: lock) xs", "lock"),
    ("%golem_map plain [lock]", "lock"),
    # engines
    ("%golem_map plain xs --engine locale", "there is no engine 'locale' (did you mean local?)"),
    ("%golem_map plain xs --engine golem", "engine 'golem' needs a folder that its workers can reach too"),
    # what is there already
    ("%golem", "%golem needs a word: known are attach"),
    ("%golem job", "%golem job is not known, did you mean jobs?"),
    ("%golem attach ffff", "no single job ffff in"),
    ("%golem attach ../x", "'../x' is no job id"),
    ("%golem cancel nosuch", "nosuch is neither a variable with results nor a job's id"),
    ("%golem logs ffff", "no single job ffff in"),
    ("%golem config worker=3", "worker in %golem config is not a setting, did you mean workers?"),
    ("%golem config worker", "worker in %golem config is not a setting, did you mean workers?"),
    ("%golem config workers=ten", "workers in %golem config is 'ten', allowed: a whole number >= 1"),
    ("%golem config server_password=hush", "server_password would stay readable in the notebook"),
    ("%golem clean --older week", "--older is 'week', allowed: a number of days"),
]


@pytest.fixture
def real(shell: Shell, run: Run, share: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real client, which would use this share, and no configuration file."""
    monkeypatch.delenv("GOLEM_MAGIC_CONFIG", raising=False)
    monkeypatch.delenv("GOLEM_MAGIC_SHARE")
    default_share = Path(os.environ["HOME"]) / ".local/share/golem-magic"
    load(shell)
    run(DEFINITIONS)
    return default_share


def assert_nothing_happened(share: Path, state_dir: Path) -> None:
    for folder in ("jobs", "objects"):
        assert not (share / folder).exists() or list((share / folder).iterdir()) == []
    assert not (state_dir / "golem.json").exists()


@pytest.mark.parametrize(("cell", "words"), WRONG, ids=[cell.partition("\n")[0] for cell, _ in WRONG])
def test_a_wrong_input_is_answered_by_one_line(
    refusal: Refusal, real: Path, state_dir: Path, cell: str, words: str
) -> None:
    line = refusal(cell)

    assert words in line
    assert "hush" not in line
    assert_nothing_happened(real, state_dir)


def test_all_faults_of_the_settings_are_told_together(
    refusal: Refusal, real: Path, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"worker": 3, "python": [], "server_password": 7}))
    monkeypatch.setenv("GOLEM_MAGIC_CONFIG", str(file))
    monkeypatch.setenv("GOLEM_MAGIC_WORKERS", "ten")

    for line in (refusal("%golem_map plain xs"), refusal("%golem config")):
        assert line.split("; ") == [
            f"worker in {file} is not a setting, did you mean workers?",
            f"python in {file} is [], allowed: a program, or a list of a program and its arguments",
            f"server_password in {file} is something that is not shown, allowed: a text",
            "GOLEM_MAGIC_WORKERS in the environment is 'ten', allowed: a whole number >= 1",
        ]
    file.write_text('{"workers": 3,}')
    assert f"{file} is not JSON (" in refusal("%golem_map plain xs")
    assert_nothing_happened(real, state_dir)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """For root, no folder is read-only; so be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.write_text("a file"), "cannot make"),
        (lambda folder: folder.symlink_to(folder.parent / "gone" / "share"), "cannot make"),
        (lambda folder: folder.mkdir(0o500), "you may not write there, choose another share"),
    ],
    ids=["a file", "missing", "read-only"],
)
def test_a_share_that_cannot_be_used_is_told(
    run: Run,
    refusal: Refusal,
    real: Path,
    state_dir: Path,
    short_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], object],
    words: str,
) -> None:
    short_tmp.chmod(0o755)
    folder = short_tmp / "the share"
    make(folder)
    run("%golem nodes")  # all is imported that will be
    monkeypatch.setenv("GOLEM_MAGIC_SHARE", str(folder))
    run("%golem config workers=2")  # which makes a new client

    with without_privileges():
        told = [refusal(cell) for cell in ("%golem_map plain xs", "%golem jobs", "%golem clean")]

    run("%golem config workers=")
    for line in told:
        assert words in line
        assert str(folder) in line
    assert_nothing_happened(folder, state_dir)
