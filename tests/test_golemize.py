"""The names of golemize.py: what programs written for it see, on the embedded Golem and on a master."""

import inspect
import io
import json
import os
import pickle
import random
import sys
import threading
import time
import traceback
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.golem_double import GolemDouble
from fakes.recording_proxy import RecordingProxy
from fakes.world import said, script

import golem_magic
from golem_magic import ShareError, golemize
from golem_magic.errors import GolemMagicError, SettingsError
from golem_magic.golemize import (
    ExecutionFailure,
    Golemizer,
    InfiniteRecursionError,
    dictToGolemizer,
    jsonToGolemizer,
)

PASSWORD = uuid.uuid4().hex  # this file travels, so it must not hold it
FILE = {
    "serverURL": "glados.example:8083",
    "serverPassword": PASSWORD,
    "golemResultRoot": "/titan/golem",
    "golemStagingRoot": "/titan/scratch",
    "golemizeScriptPath": "/titan/golemize.py",
}


@pytest.fixture
def here(share: Path) -> Golemizer:
    """Runs on this machine."""
    return Golemizer("", "", "", str(share), "")


@pytest.fixture
def golem(tmp_path: Path) -> Iterator[GolemDouble]:
    with GolemDouble(tmp_path / "golem", password=PASSWORD) as double:
        yield double


@pytest.fixture
def there(golem: GolemDouble, share: Path) -> Golemizer:
    """Runs on a master."""
    return Golemizer(golem.url, PASSWORD, "", str(share), "")


@pytest.fixture(params=["here", "there"])
def golemizer(request: pytest.FixtureRequest) -> Golemizer:
    found: Golemizer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def old() -> Golemizer:
    """As a program of old would make it; nothing is there."""
    return dictToGolemizer(FILE)


def times(x: int, factor: int) -> int:
    return x * factor


def inverse(x: int, _: object) -> float:
    return 1.0 / x


def manifest(golemizer: Golemizer, job_id: str) -> dict[str, Any]:
    path = Path(golemizer.pickleInputShare) / "jobs" / job_id / "manifest.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


# --- names, positions, defaults ---


@pytest.mark.unit
@pytest.mark.meets("G-29")
def test_the_constructor_is_called_as_it_was() -> None:
    parameters = list(inspect.signature(Golemizer).parameters.values())

    assert [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD] == [
        "serverUrl",
        "serverPass",
        "golemOutputPath",
        "pickleScratch",
        "thisLibraryPath",
        "pyPath",
        "pickleOut",
        "taskSize",
    ]
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    assert defaults == {"pyPath": sys.executable, "pickleOut": None, "taskSize": 10, "golemIdSeq": ()}


@pytest.mark.unit
@pytest.mark.meets("G-02")
def test_a_run_is_started_as_it_was() -> None:
    parameters = list(inspect.signature(Golemizer.goDoIt).parameters.values())[1:]

    assert {each.kind for each in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert [(each.name, each.default) for each in parameters] == [
        ("inputSeq", inspect.Parameter.empty),
        ("commonData", inspect.Parameter.empty),
        ("targetFunction", inspect.Parameter.empty),
        ("binplace", True),
        ("alternateSource", None),
        ("recursive", False),
        ("quiet", False),
        ("label", ""),
        ("email", ""),
    ]


# --- attributes ---


@pytest.mark.unit
@pytest.mark.meets("G-29", "G-30")
def test_what_was_given_can_be_read() -> None:
    said = ("http://localhost:8083", PASSWORD, "/out", "/in", "/lib", "/usr/bin/python3", "/results", 7)

    golemizer = Golemizer(*said, golemIdSeq=range(9, 11))

    assert golemizer.masterPath == "http://localhost:8083/jobs/"
    assert golemizer.serverPass == PASSWORD
    assert golemizer.golemOutPath == "/out"
    assert golemizer.pickleInputShare == "/in"
    assert golemizer.thisLibraryPath == "/lib"
    assert golemizer.pyPath == "/usr/bin/python3"
    assert golemizer.jobOutputPath == "/results"
    assert golemizer.taskSize == 7
    assert golemizer.golemIds == ["09", "10"]


@pytest.mark.unit
@pytest.mark.meets("G-30")
def test_what_was_not_given_has_its_default(old: Golemizer) -> None:
    assert (old.jobOutputPath, old.taskSize, old.pyPath, old.golemIds) == ("./", 10, sys.executable, [])


@pytest.mark.unit
@pytest.mark.meets("G-30")
@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("master:8083", "https://master:8083/jobs/"),
        ("https://master:8083/", "https://master:8083/jobs/"),
        ("http://master/jobs/", "http://master/jobs/"),
        ("http://master/golem/jobs", "http://master/golem/jobs/"),
        ("", ""),
    ],
)
def test_the_masters_address_is_canonical(old: Golemizer, given: str, canonical: str) -> None:
    old.masterPath = given

    assert old.masterPath == canonical
    old.masterPath = old.masterPath
    assert old.masterPath == canonical


@pytest.mark.unit
@pytest.mark.meets("G-30")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("masterPath", "ftp://master", "serverURL in the call is something that is not shown"),
        ("masterPath", "me:secret@master", "masterPath must not hold a user or password"),
        ("masterPath", "https://", "allowed: host:port or an http(s) URL"),
        ("masterPath", 8083, "masterPath is of type int: give text"),
        ("serverPass", b"secret", "serverPass is of type bytes: give text"),
        ("pickleInputShare", " ", "golemStagingRoot in the call is ' ', allowed: the path of a folder"),
        ("pyPath", ["python"], "pyPath is of type list: give text"),
        ("golemOutPath", 3, "golemOutPath is of type int"),
        ("thisLibraryPath", 3, "thisLibraryPath is of type int"),
        ("jobOutputPath", 3, "jobOutputPath is of type int"),
        ("taskSize", 0, "taskSize is 0: give a whole number from 1 up, or 'auto'"),
        ("golemIds", "one", "golemIds is 'one': give whole numbers"),
    ],
)
def test_a_wrong_value_is_refused_when_it_is_set(
    old: Golemizer, name: str, value: object, words: str
) -> None:
    before = getattr(old, name)

    with pytest.raises(SettingsError) as caught:
        setattr(old, name, value)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert getattr(old, name) == before


@pytest.mark.unit
@pytest.mark.meets("G-30")
def test_all_that_is_wrong_is_told_together() -> None:
    with pytest.raises(SettingsError) as caught:
        Golemizer("https://me:geheim@master", PASSWORD, 1, " ", "", taskSize="ten")

    for word in ("golemOutPath", "taskSize is 'ten'", "masterPath must not hold", "golemStagingRoot"):
        assert word in str(caught.value)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    ours = shown.partition("in __init__")[2]
    assert "taskSize = 'ten'" in ours
    assert "geheim" not in ours
    assert PASSWORD not in ours


@pytest.mark.unit
@pytest.mark.meets("G-30")
def test_the_password_is_nowhere_to_be_seen(old: Golemizer) -> None:
    assert PASSWORD not in repr(old)
    assert PASSWORD not in repr(vars(old))
    assert PASSWORD.encode() not in pickle.dumps(old)
    assert pickle.loads(pickle.dumps(old)).masterPath == old.masterPath


@pytest.mark.unit
@pytest.mark.meets("G-31")
def test_the_task_size_is_checked_at_once(old: Golemizer) -> None:
    for good in (1, 10**6, "auto"):
        old.setTaskSize(good)
        assert old.taskSize == good
    for bad in (0, -1, 2.0, "ten", None, True):
        with pytest.raises(SettingsError, match="taskSize is"):
            old.setTaskSize(bad)
    assert old.taskSize == "auto"


@pytest.mark.meets("G-30", "G-31")
def test_what_is_changed_holds_from_the_next_run_on(here: Golemizer, tmp_path: Path) -> None:
    first: Any = here.goDoIt([1], 2, times)
    assert manifest(here, first.jobId)["chunk_size"] == 10

    here.setTaskSize(3)
    here.pickleInputShare = str(tmp_path / "another share")
    second: Any = here.goDoIt([1], 2, times)

    assert manifest(here, second.jobId)["chunk_size"] == 3
    assert list(first) == list(second) == [2]


# --- configuration files ---


@pytest.mark.unit
@pytest.mark.meets("G-32")
def test_a_file_makes_a_golemizer() -> None:
    text = json.dumps({**FILE, "pythonBin": "/hpc/python", "pickleOut": "/o", "taskSize": 5, "comment": ""})

    golemizer = jsonToGolemizer(io.StringIO(text))

    assert golemizer.masterPath == "https://glados.example:8083/jobs/"
    assert golemizer.serverPass == PASSWORD
    assert golemizer.golemOutPath == "/titan/golem"
    assert golemizer.pickleInputShare == "/titan/scratch"
    assert golemizer.thisLibraryPath == "/titan/golemize.py"
    assert (golemizer.pyPath, golemizer.jobOutputPath, golemizer.taskSize) == ("/hpc/python", "/o", 5)


@pytest.mark.unit
@pytest.mark.meets("G-32")
def test_missing_keys_and_broken_files_are_told() -> None:
    with pytest.raises(KeyError, match="serverPassword, golemStagingRoot"):
        dictToGolemizer({key: FILE[key] for key in ("serverURL", "golemResultRoot", "golemizeScriptPath")})
    with pytest.raises(json.JSONDecodeError):
        jsonToGolemizer(io.StringIO("{"))
    with pytest.raises(SettingsError, match=r"taskSize is 0.*serverURL in the call"):
        dictToGolemizer({**FILE, "taskSize": 0, "serverURL": "ftp://x"})


@pytest.mark.unit
@pytest.mark.meets("G-32")
def test_the_numbers_of_machines_are_ignored_with_a_note() -> None:
    with pytest.warns(UserWarning, match="lowGolemID and highGolemID: machines are the master's business"):
        assert dictToGolemizer({**FILE, "lowGolemID": 1, "highGolemID": 9}).golemIds == []


# --- a run ---


@pytest.mark.meets("G-01", "G-02", "G-05", "G-12", "G-39")
def test_results_come_in_the_order_of_the_inputs(golemizer: Golemizer) -> None:
    lengths = [random.randrange(1000) for _ in range(50)]

    results = golemizer.goDoIt((n for n in lengths), "nyan", times)

    assert list(results) == ["nyan" * n for n in lengths]


@pytest.mark.meets("G-01", "G-05")
def test_none_is_common_data_as_good_as_any(here: Golemizer) -> None:
    assert list(here.goDoIt([1, 2], None, lambda x, common: (x, common))) == [(1, None), (2, None)]


@pytest.mark.meets("G-01")
@pytest.mark.parametrize("function", [abs, lambda x, y, z: x, lambda: None], ids=["one", "three", "none"])
def test_a_function_that_does_not_take_two_is_refused_before_anything_is_sent(
    here: Golemizer, share: Path, function: Any
) -> None:
    with pytest.raises(SettingsError, match="cannot be called with 2 arguments"):
        here.goDoIt([1], None, function)

    assert list(share.glob("jobs/*")) == []


@pytest.mark.meets("G-03", "G-04")
def test_inputs_are_drawn_once_and_work_begins_before_they_end(here: Golemizer, tmp_path: Path) -> None:
    class Input:
        def __init__(self, number: int) -> None:
            self.number = number

    seen: list[weakref.ref[Input]] = []
    begun = tmp_path / "begun"

    def inputs() -> Iterator[Input]:
        for number in range(3000):
            each = Input(number)
            seen.append(weakref.ref(each))
            yield each
        del each
        deadline = time.monotonic() + 60
        while not begun.exists():
            assert time.monotonic() < deadline, "no task has run while the inputs were drawn"
            time.sleep(0.01)
        assert seen[0]() is None  # on the share, so let go of
        yield Input(3000)

    def touch(each: Any, path: str) -> int:
        Path(path).touch()
        return int(each.number)

    assert list(here.goDoIt(inputs(), str(begun), touch)) == list(range(3001))


@pytest.mark.meets("G-06")
def test_a_method_is_a_function(here: Golemizer) -> None:
    class Line:
        def __init__(self, slope: int) -> None:
            self.slope = slope

        def at(self, x: int, offset: int) -> int:
            return self.slope * x + offset

    assert list(here.goDoIt(range(5), 1, Line(3).at)) == [1, 4, 7, 10, 13]


@pytest.mark.meets("G-08")
def test_no_inputs_are_no_results_and_no_submission(golem: GolemDouble, there: Golemizer) -> None:
    began = time.monotonic()

    assert list(there.goDoIt(iter(()), None, inverse)) == []
    assert time.monotonic() - began < 5
    assert "POST /jobs/" not in golem.seen
    assert list(there.goDoIt([1], None, inverse)) == [1.0]
    assert "POST /jobs/" in golem.seen


@pytest.mark.meets("G-09")
def test_label_and_email_are_shown_with_the_job(golem: GolemDouble, share: Path) -> None:
    with RecordingProxy(golem.url) as proxy:
        golemizer = Golemizer(proxy.url, PASSWORD, "", str(share), "")
        assert list(golemizer.goDoIt([1], 2, times, label="a label", email="me@example.org")) == [2]
        assert list(golemizer.goDoIt([1], 2, times)) == [2]
        sent = [post.headers for post in proxy.submissions]

    owners = {each["x-golem-job-label"]: each["x-golem-job-owner"] for each in sent}
    assert owners.keys() == {"a label", "times"}
    assert owners["a label"] == "me@example.org"
    assert owners["times"] not in ("", "me@example.org")


@pytest.mark.meets("G-10", "G-11")
@pytest.mark.parametrize("quiet", [False, True])
def test_nothing_is_printed_and_the_folder_is_the_same(
    here: Golemizer,
    quiet: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert list(here.goDoIt([1, 2], 2, times, quiet=quiet)) == [2, 4]
    with pytest.raises(GolemMagicError):
        here.goDoIt([threading.Lock()], None, times, quiet=quiet)

    assert os.getcwd() == str(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.unit
def test_what_cannot_be_done_is_refused(old: Golemizer) -> None:
    with pytest.raises(SettingsError, match="binplace=False, to send nothing, is not available yet"):
        old.goDoIt([1], None, inverse, binplace=False)
    with pytest.raises(SettingsError, match="alternateSource is not available yet"):
        old.goDoIt([1], None, inverse, alternateSource="/titan/script.py")


# --- the iterator ---


@pytest.mark.meets("G-14")
def test_results_are_iterated_over_once(here: Golemizer) -> None:
    run: Any = here.goDoIt(range(4), 1, times)

    assert iter(run) is run
    assert [next(run), next(run)] == [0, 1]
    assert run.position == 2
    assert list(run) == [2, 3]
    assert list(run) == []
    with pytest.raises(TypeError):
        run[0]
    assert list(run.results) == [0, 1, 2, 3]
    assert len(run.results) == 4


@pytest.mark.meets("G-16", "G-18", "G-39")
def test_an_exception_is_raised_at_its_place_and_the_rest_can_be_had(golemizer: Golemizer) -> None:
    run = golemizer.goDoIt(range(-100, 100), None, inverse)

    assert [next(run) for _ in range(100)] == [1.0 / x for x in range(-100, 0)]
    with pytest.raises(ZeroDivisionError, match="float division by zero") as caught:
        next(run)
    assert "return 1.0 / x" in "".join(caught.value.__notes__)
    assert list(run) == [1.0 / x for x in range(1, 100)]


@pytest.mark.meets("G-20")
def test_an_input_without_a_result_is_an_execution_failure_at_its_place(here: Golemizer) -> None:
    here.setTaskSize(1)
    run = here.goDoIt(range(4), None, lambda x, _: os._exit(7) if x == 2 else x)

    assert [next(run), next(run)] == [0, 1]
    with pytest.raises(ExecutionFailure, match=r"input 2 of 4 has no result: .* exit code 7") as caught:
        next(run)
    assert isinstance(caught.value, golem_magic.ExecutionFailure)
    assert type(caught.value).__name__ == "ExecutionFailure"
    assert repr(caught.value) == f"ExecutionFailure({str(caught.value)!r})"
    assert list(run) == [3]


@pytest.mark.meets("G-20")
def test_results_that_never_come_are_counted(here: Golemizer, tmp_path: Path) -> None:
    here.pyPath = str(tmp_path / "no python")
    run = here.goDoIt(range(5), None, inverse)

    with pytest.raises(ExecutionFailure, match=r"5 of 5 inputs have no result: .*no python is not there"):
        next(run)
    assert list(run) == []


# --- what is left of a job ---


@pytest.mark.meets("G-21", "G-22")
def test_another_process_salvages_a_job_by_its_id(golemizer: Golemizer) -> None:
    run: Any = golemizer.goDoIt(range(-2, 3), None, inverse)
    run.results.wait(60)

    program = (
        "import sys\n"
        "from golem_magic.golemize import Golemizer\n"
        "golemizer = Golemizer(*sys.argv[1:4], sys.argv[4], '')\n"
        "salvaged, found = golemizer.salvage(sys.argv[5]), []\n"
        "while True:\n"
        "    try:\n"
        "        found.append(next(salvaged))\n"
        "    except StopIteration:\n"
        "        break\n"
        "    except ZeroDivisionError as error:\n"
        "        found.append(str(error))\n"
        "print(found, salvaged.missing)\n"
        "print([type(each).__name__ for each in golemizer.ultra_salvage(sys.argv[5])])\n"
    )
    url = golemizer.masterPath.removesuffix("/jobs/")
    words = (url, golemizer.serverPass, "", golemizer.pickleInputShare, run.jobId)

    assert said(script(program, *words)).splitlines() == [
        "[-0.5, -1.0, 'float division by zero', 1.0, 0.5] []",
        "['float', 'float', 'ZeroDivisionError', 'float', 'float']",
    ]


@pytest.mark.meets("G-22")
def test_tracebacks_of_what_is_salvaged_are_printed(
    here: Golemizer, capfd: pytest.CaptureFixture[str]
) -> None:
    def task(x: int, _: object) -> object:
        return ValueError("a value") if x == 1 else inverse(x, None)

    run: Any = here.goDoIt(range(3), None, task)
    run.results.wait(60)

    division, value, number = here.ultra_salvage(run.jobId)

    assert (type(division), type(value), number) == (ZeroDivisionError, ValueError, 0.5)
    out, errors = capfd.readouterr()
    assert out == ""
    assert "ZeroDivisionError: float division by zero" in errors
    assert "return 1.0 / x" in errors
    assert "ValueError: a value" not in errors  # it was returned


@pytest.mark.meets("G-21", "G-22")
def test_what_is_missing_is_told_and_not_waited_for(there: Golemizer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def waits(x: int, path: str) -> int:
        while x == 1 and not os.path.exists(path):
            time.sleep(0.01)
        return x

    there.setTaskSize(1)
    run: Any = there.goDoIt(range(4), str(gate), waits)
    try:
        deadline = time.monotonic() + 60
        while run.results.progress.n_done < 3:  # there are two workers
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for salvaged in (there.salvage(run.jobId), there.ultra_salvage(run.jobId)):
            assert salvaged.missing == [1]
            assert list(salvaged) == [0, 2, 3]
    finally:
        gate.touch()
    assert list(run) == list(there.salvage(run.jobId)) == [0, 1, 2, 3]


@pytest.mark.meets("G-21")
def test_a_job_without_results_gives_none_and_one_that_is_not_there_is_told(here: Golemizer) -> None:
    run: Any = here.goDoIt([], None, inverse)

    assert list(here.salvage(run.jobId)) == []
    with pytest.raises(ShareError, match="no single job 00"):
        here.salvage("0" * 32)


# --- a run from inside a task ---


@pytest.mark.meets("G-26")
def test_a_task_cannot_start_a_run(golemizer: Golemizer, share: Path) -> None:
    golemizer.serverPass = golemizer.serverPass or PASSWORD

    def outer(x: int, _: object) -> object:
        return list(golemizer.goDoIt(range(x), 1, times))

    run: Any = golemizer.goDoIt([3], None, outer)

    with pytest.raises(InfiniteRecursionError, match="tried to start a job of its own") as caught:
        next(run)
    error = caught.value
    assert error.message == str(error)
    assert repr(error) == f"InfiniteRecursionError({error.message!r})"
    assert [path.name for path in share.glob("jobs/*")] == [run.jobId]
    files = [path for path in share.rglob("*") if path.is_file()]
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


@pytest.mark.meets("G-26")
def test_a_task_may_compute_a_run_itself(here: Golemizer, share: Path) -> None:
    def outer(x: int, _: object) -> object:
        return list(here.goDoIt(range(x), 2, times, recursive=True))

    def stops(x: int, _: object) -> object:
        return list(here.goDoIt([x], None, lambda each, _: next(iter([])), recursive=True))

    assert list(here.goDoIt([2, 3], None, outer, recursive=True)) == [[0, 2], [0, 2, 4]]
    with pytest.raises(golem_magic.TaskError, match="the function raised StopIteration"):
        list(here.goDoIt([1], None, stops))
    assert len(list(share.glob("jobs/*"))) == 2


@pytest.mark.unit
def test_the_public_names_are_those_of_old() -> None:
    assert golemize.__all__ == sorted(golemize.__all__)
    assert all(hasattr(golemize, name) for name in golemize.__all__)
