"""golemize.py's names over :class:`golem_magic.Client`, so that programs written for it keep working.

Their import changes, and nothing else::

    from golem_magic.golemize import ExecutionFailure, jsonToGolemizer
"""

# ruff: noqa: N802, N803, N806, N815 - these names are the point of this room

import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, Literal, cast

from golem_magic.client import Client
from golem_magic.errors import (
    ExecutionFailure,
    InfiniteRecursionError,
    JobCancelled,
    NoWorkersError,
    SettingsError,
    TaskError,
    TaskTimeout,
    WorkerDied,
)
from golem_magic.options import checked
from golem_magic.results import Results
from golem_magic.results.passes import ResultIterator
from golem_magic.settings import Secret, Settings, load_settings

__all__ = ["ExecutionFailure", "Golemizer", "InfiniteRecursionError", "dictToGolemizer", "jsonToGolemizer"]

_JOBS = "/jobs/"
_SECRETS = ("serverPass", "masterPath")  # there may be a password in an address, by mistake
# Keys of the configuration file, and the constructor's names.
_REQUIRED = {
    "serverURL": "serverUrl",
    "serverPassword": "serverPass",
    "golemResultRoot": "golemOutputPath",
    "golemStagingRoot": "pickleScratch",
    "golemizeScriptPath": "thisLibraryPath",
}
_KEYS = {**_REQUIRED, "pythonBin": "pyPath", "pickleOut": "pickleOut", "taskSize": "taskSize"}


class Golemizer:
    """The settings of a cluster, and maps with them.

    What is empty comes from golem_magic's own settings; without a ``serverUrl`` anywhere,
    jobs run on this machine. Attributes may be changed at any time and hold from the next
    call on; a wrong value is refused at once and changes nothing. Copies and pickles go
    without the password.

    Args:
        serverUrl: The master's address; without ``http://`` or ``https://`` it means https.
        serverPass: Its shared password; never shown.
        golemOutputPath: Accepted, has no effect: results come back through ``pickleScratch``.
        pickleScratch: The share, a folder that this machine and all workers see.
        thisLibraryPath: Accepted, has no effect: the workers' code travels.
        pyPath: The workers' interpreter.
        pickleOut: Accepted, has no effect: results stay in ``pickleScratch``.
        taskSize: Inputs that travel together, >= 1; "auto" follows the measured speed.
        golemIdSeq: Accepted, has no effect: machines are the master's business.

    Raises:
        SettingsError: Something is wrong; all faults are named together.
    """

    masterPath: str
    serverPass: str
    golemOutPath: str
    pickleInputShare: str
    thisLibraryPath: str
    pyPath: str
    jobOutputPath: str
    taskSize: int | Literal["auto"]
    golemIds: list[str]
    _clients: dict[Settings, Client]

    def __init__(  # noqa: PLR0913 - as it was
        self,
        serverUrl: str | None,
        serverPass: str | None,
        golemOutputPath: str | None,
        pickleScratch: str | None,
        thisLibraryPath: str | None,
        pyPath: str = sys.executable,
        pickleOut: str | None = None,
        taskSize: int | Literal["auto"] = 10,
        *,
        golemIdSeq: Iterable[int] = (),
    ) -> None:
        # Or tools that show the variables of a traceback would show them.
        serverUrl, serverPass = _unseen(serverUrl), _unseen(serverPass)
        vars(self)["_clients"] = {}
        self._set(
            masterPath=serverUrl,
            serverPass=serverPass,
            golemOutPath=golemOutputPath,
            pickleInputShare=pickleScratch,
            thisLibraryPath=thisLibraryPath,
            pyPath=pyPath,
            jobOutputPath=pickleOut,
            taskSize=taskSize,
            golemIds=golemIdSeq,
        )

    def __setattr__(self, name: str, value: object) -> None:
        if name in _SECRETS:
            value = _unseen(value)
        self._set(**{name: value})

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name not in ("serverPass", "_clients")}
        return f"Golemizer({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "serverPass": "", "_clients": {}}

    def setTaskSize(self, value: int | Literal["auto"]) -> None:
        """Set how many inputs travel together: a whole number from 1 up, or "auto"."""
        self.taskSize = value

    def goDoIt(  # noqa: PLR0913 - as it was
        self,
        inputSeq: Iterable[Any],
        commonData: Any,
        targetFunction: Callable[[Any, Any], Any],
        binplace: bool = True,
        alternateSource: str | None = None,
        recursive: bool = False,
        quiet: bool = False,
        label: str = "",
        email: str = "",
    ) -> Iterator[Any]:
        """Run ``targetFunction(input, commonData)`` for every input; give the results in order.

        Returns as soon as the inputs are drawn; the results come while the job runs.

        Args:
            inputSeq: Anything a ``for`` loop can draw from; read once, in order.
            commonData: Given to every call, sent once; None is as good as anything.
            targetFunction: Travels by value, with the modules of yours that it imports.
            binplace: False is refused.
            alternateSource: Anything is refused.
            recursive: Called from inside a task, compute there, one by one as the results are read,
                instead of raising.
            quiet: Accepted, has no effect: nothing is printed anyway.
            label: Free text shown with the job.
            email: Free text shown as the job's owner.

        Returns:
            A :class:`Run`.

        Raises:
            InfiniteRecursionError: Called from inside a task. Nothing was submitted.
            GolemMagicError: Something is wrong with the call, or cannot be sent or reached.
        """
        _refuse_sources(binplace=binplace, alternateSource=alternateSource)
        client = self._client(owner=email)
        try:
            results = client.map(
                targetFunction, inputSeq, common=commonData, chunk_size=self.taskSize, label=label
            )
        except InfiniteRecursionError:
            if recursive:
                return map(_called_here(targetFunction, commonData), inputSeq)
            raise
        return Run(results)

    def salvage(self, jobId: str) -> "Salvaged":
        """What there is of a job's results now, in order; a task's exception is raised at its place.

        Any process may ask, at any time. A job that is not over goes on meanwhile.

        Raises:
            ShareError: There is no such job on the share.
        """
        return Salvaged(self._client().attach(jobId, on_error="raise"))

    def ultra_salvage(self, jobId: str) -> "Salvaged":
        """As :meth:`salvage`, but a task's exception is a value, and its traceback goes to standard error.

        Raises:
            ShareError: There is no such job on the share.
        """
        return Salvaged(self._client().attach(jobId, on_error="return"), shows_failures=True)

    def _set(self, **said: object) -> None:
        """Take all of it, or nothing."""
        new, faults = vars(self).copy(), []
        for name, value in said.items():
            try:
                new[name] = _kept(name, value)
            except SettingsError as error:
                faults.append(str(error))
        try:
            _settings(new)
        except SettingsError as error:
            faults.append(str(error))
        if faults:
            raise SettingsError("; ".join(faults))
        vars(self).update(new)

    def _client(self, owner: str = "") -> Client:
        settings = _settings(vars(self), owner)
        return self._clients.setdefault(settings, Client(settings))


def dictToGolemizer(config: Mapping[str, Any]) -> Golemizer:
    """Make a Golemizer of what a configuration file says; keys that it never had are ignored.

    Raises:
        KeyError: A required key is missing; all that are missing are named.
        SettingsError: Something is wrong; all faults are named together.
    """
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise KeyError(", ".join(missing))
    ignored = [key for key in ("lowGolemID", "highGolemID") if key in config]
    if ignored:
        warnings.warn(f"{' and '.join(ignored)}: machines are the master's business", stacklevel=2)
    return Golemizer(**{parameter: config[key] for key, parameter in _KEYS.items() if key in config})


def jsonToGolemizer(jsonfile: IO[str] | IO[bytes]) -> Golemizer:
    """Make a Golemizer of an open configuration file, one JSON object; see :func:`dictToGolemizer`."""
    return dictToGolemizer(json.load(jsonfile))


class Run(Iterator[Any]):
    """The results of a run, once, in the order of the inputs, each as soon as it is there.

    An input's exception is raised at its place, or :class:`ExecutionFailure` if it gave no result;
    the next one can be asked for after that.

    Attributes:
        results: The same results, to be counted, indexed, read again; with the job's progress.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._each = cast("ResultIterator", iter(results))

    @property
    def jobId(self) -> str:
        """For :meth:`Golemizer.salvage`."""
        return self.results.job_id

    @property
    def position(self) -> int:
        """How many results have been passed."""
        return self._each.position

    def __next__(self) -> Any:
        __tracebackhide__ = True
        try:
            return next(self._each)
        except (WorkerDied, TaskTimeout, NoWorkersError, JobCancelled) as error:
            raise self._execution_failure(error) from error

    def __repr__(self) -> str:
        return f"<Run at {self.position} of {self.results!r}>"

    def _execution_failure(self, error: Exception) -> ExecutionFailure:
        progress = self.results.progress
        total = progress.n_tasks or progress.n_staged
        which = f"{total - progress.n_done - progress.n_failed} of {total} inputs have"
        if isinstance(error, TaskError):  # one input's own outcome; the others may be well
            which = f"input {self.position - 1} of {total} has"
        return ExecutionFailure(f"{which} no result: {error}")


class Salvaged(Iterator[Any]):
    """What there was of a job's results when it was asked, once, in order.

    Attributes:
        missing: Numbers of the inputs, from 0, that have neither result nor exception.
    """

    def __init__(self, results: Results, *, shows_failures: bool = False) -> None:
        self.missing = results.missing()
        self._failed = set(results.errors()) if shows_failures else set()
        self._each = results.available()

    def __next__(self) -> Any:
        __tracebackhide__ = True
        index, value = next(self._each)
        if index in self._failed:
            traceback.print_exception(value)
        return value


# --- names and values ---


def _settings(attributes: Mapping[str, Any], owner: str = "") -> Settings:
    """What the attributes mean; what is empty is left to the other places of settings."""
    url = attributes.get("masterPath", "").removesuffix(_JOBS)
    said = {
        "serverURL": url,
        "serverPassword": attributes.get("serverPass"),
        "golemStagingRoot": attributes.get("pickleInputShare"),
        "pythonBin": attributes.get("pyPath"),
        "owner": owner,
        "engine": "golem" if url else None,
    }
    return load_settings(**{key: value for key, value in said.items() if value})


def _kept(name: str, value: object) -> object:
    """An attribute's value as it is kept."""
    match name:
        case "taskSize":
            return _task_size(value)
        case "golemIds":
            return _golem_ids(value)
        case "masterPath":
            return _master_path(_text(name, value))
        case "serverPass":
            return Secret(_text(name, value))
        case "jobOutputPath":
            return _text(name, value) or "./"
        case "golemOutPath" | "pickleInputShare" | "thisLibraryPath" | "pyPath":
            return _text(name, value)
        case _:  # a subclass's own
            return value


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value
    message = f"{name} is of type {type(value).__name__}: give text, or nothing"
    raise SettingsError(message)


def _master_path(url: str) -> str:
    if "@" in url:  # told here, so that it is kept nowhere
        message = "masterPath must not hold a user or password: use serverPass"
        raise SettingsError(message)
    base = re.sub("(?<![:/])/+(jobs/*)?$", "", url.strip())
    if base and "://" not in base:
        base = f"https://{base}"
    return base and base + _JOBS


def _task_size(value: object) -> int | Literal["auto"]:
    try:
        return checked({"chunk_size": value}).chunk_size or "auto"
    except SettingsError as error:
        raise SettingsError(str(error).replace("chunk_size", "taskSize")) from None


def _golem_ids(value: object) -> list[str]:
    numbers: Any = () if value is None else value
    try:
        return [f"{int(each):02d}" for each in numbers]
    except (TypeError, ValueError):
        message = f"golemIds is {value!r}: give whole numbers, or nothing"
        raise SettingsError(message) from None


def _unseen(value: Any) -> Any:
    return Secret(value) if isinstance(value, str) else value


def _refuse_sources(*, binplace: object, alternateSource: object) -> None:
    travel = "the function and the modules of yours that it imports travel by themselves"
    if not binplace:
        message = f"binplace=False, to send nothing, is not available yet: leave it out, {travel}"
        raise SettingsError(message)
    if alternateSource is not None:
        message = f"alternateSource is not available yet: import that file and map its function, {travel}"
        raise SettingsError(message)


def _called_here(function: Callable[[Any, Any], Any], common: Any) -> Callable[[Any], Any]:
    """The function as it is called in this process, in the iterator itself."""

    def call(value: Any) -> Any:
        try:
            return function(value, common)
        except StopIteration as error:  # would end the results as if they were complete
            message = "the function raised StopIteration"
            raise TaskError(message) from error

    return call
