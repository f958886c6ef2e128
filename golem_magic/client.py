"""Putting the pieces together for one map; finding a job again; the default client."""

import getpass
import inspect
import os
import platform
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Sized
from dataclasses import replace
from typing import Any, Final, Literal, cast, get_args

from golem_magic import payload
from golem_magic.clock import SystemClock, wall_time
from golem_magic.dispatcher import Dispatcher, Site
from golem_magic.engines.base import Engine, EngineOptions
from golem_magic.engines.registry import load_engine
from golem_magic.errors import GolemMagicError, InfiniteRecursionError, PayloadError, SettingsError
from golem_magic.inputs import Drawer
from golem_magic.model import Digest, JobId, JobSnapshot, JobState, MapOptions, OnError
from golem_magic.results import Results
from golem_magic.settings import Settings, load_settings
from golem_magic.share import jobs, runtime, store
from golem_magic.share.book import Book
from golem_magic.share.inputs_log import InputWriter, count_inputs
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths, SharePaths

BEAT_S = {True: 1.0, False: 5.0}  # by "all workers are on this machine"
LEASE_S = {True: 10.0, False: 90.0}
MAX_ATTEMPTS = 3


class _NotGiven:
    """Marks "no common data", which None is not."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = _NotGiven()
LATER = {"retries": 0, "timeout": None, "setup": None, "resources": None, "seed": None, "stream": False,
         "keep": "all", "cache": False}  # fmt: skip


class Client:
    """One set of settings, its share and its engine; maps functions and finds jobs again.

    Any setting may be given as a keyword (``engine``, ``share``, ``server_url``,
    ``server_password``, ``workers``, ``python``); what is not given comes from
    the environment, the settings file and the defaults. Nothing is started or
    written before the first map.
    """

    def __init__(self, settings: Settings | None = None, **overrides: object) -> None:
        self.settings = settings if settings is not None else load_settings(**overrides)
        self._clock = SystemClock()
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client(engine={self.settings.engine!r}, share={self.settings.share!r})"

    def map(  # noqa: PLR0913 - the user's keywords, turned into one MapOptions at once
        self,
        function: Callable[..., Any],
        inputs: Iterable[Any],
        *,
        common: Any = NOT_GIVEN,
        chunk_size: int | Literal["auto"] = "auto",
        on_error: OnError = "raise",
        workers: int | None = None,
        engine: str | None = None,
        label: str | None = None,
        star: bool = False,
        unordered: bool = False,
        **later: object,
    ) -> Results:
        """Run ``function`` on every input, on the engine; give its results as a lazy sequence.

        The calling thread draws all inputs before the call returns, while
        workers already run on the first of them; what is changed afterwards
        changes nothing.

        Args:
            function: Called as ``function(x)``, or ``function(x, common)`` if common data is given.
            inputs: Anything a ``for`` loop can draw from; read once, in order.
            common: Data that every task gets; stored once. An explicit None counts as given.
            chunk_size: Tasks per lease, >= 1; "auto" follows the measured speed.
            on_error: At a failed task an iterator raises, returns the exception, or skips.
            workers: How many to place; None: as many as the engine has slots.
            engine: Another engine than the settings name.
            label: Free text shown with the job.
            star: Unpack each input into positional arguments.
            unordered: Iterate in the order in which results come.
            **later: Options that are not available yet; refused unless they are at their default.

        Raises:
            PayloadError: The function, the common data or an input cannot be pickled.
            ShareError: The share cannot be written.
            InfiniteRecursionError: Called from inside a task.
            GolemMagicError: An option is wrong. Nothing was submitted.
        """
        options = MapOptions(
            common=None if common is NOT_GIVEN else common,
            has_common=common is not NOT_GIVEN,
            chunk_size=_checked_chunk_size(chunk_size),
            on_error=_checked_on_error(on_error),
            workers=_checked_workers(workers),
            label=_checked_label(label),
            star=star,
            unordered=unordered,
        )
        _refuse_later(later)
        return self._map(function, inputs, options, engine)

    def attach(self, job_id: str, *, on_error: OnError | None = None) -> Results:
        """Find a job again by its id or an unambiguous beginning of it; continue what its client did.

        Raises:
            ShareError: There is no such job, or several.
            FormatError: It was made by another version.
        """
        share = self._share(self.settings)
        paths = share.job(jobs.find_job(share, str(job_id)))
        manifest = jobs.read_manifest(paths)
        digest = jobs.manifest_digest(paths)
        site = self._site_of(share, manifest, digest)
        dispatcher = Dispatcher(paths, manifest, site, self._clock)
        dispatcher.start()
        policy = _checked_on_error(on_error or manifest.on_error)
        return Results(dispatcher, on_error=policy)

    def jobs(self) -> list[JobSnapshot]:
        """All jobs on the share, newest first, as their folders show them now."""
        share = self._share(self.settings)
        found = []
        for job_id in jobs.list_jobs(share):
            paths = share.job(job_id)
            try:
                found.append((jobs.read_manifest(paths), paths))
            except GolemMagicError:  # another version, or being removed
                continue
        found.sort(key=lambda pair: pair[0].created_s, reverse=True)
        return [_picture(manifest, paths) for manifest, paths in found]

    def cancel(self, job_id: str) -> JobId:
        """Cancel a job by its id or an unambiguous beginning of it; give the whole id.

        Raises:
            ShareError: There is no such job, or its folder cannot be written.
        """
        share = self._share(self.settings)
        found = jobs.find_job(share, str(job_id))
        jobs.ask_to_cancel(share.job(found))
        return found

    def close(self) -> None:
        """Let go of the engines. Jobs go on; closing twice is harmless."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()

    # -- one map, step by step ---------------------------------------------------------------------------

    def _map(
        self,
        function: Callable[..., Any],
        inputs: Iterable[Any],
        options: MapOptions,
        engine: str | None,
    ) -> Results:
        _refuse_recursion()
        settings = self.settings.for_engine(engine) if engine else self.settings
        name = _checked_function(function)
        self._engine(settings)  # an engine that does not exist is told before an input is drawn
        drawer = Drawer(inputs)
        first = drawer.next_block()
        _check_arguments(function, name, options, first)
        frame = _dump_inputs(first, 0)
        share = self._share(settings)
        digests = _stage_objects(share, function, name, options)
        manifest = self._manifest(settings, options, name, digests)
        paths = share.job(manifest.job_id)
        manifest_digest = jobs.make_job(paths, manifest)
        writer = InputWriter(paths)
        site = self._site(settings, share, manifest, manifest_digest)
        dispatcher = Dispatcher(paths, manifest, site, self._clock, staging=writer)
        try:
            _stage_inputs(writer, drawer, first, frame, dispatcher)
        except BaseException:
            dispatcher.cancel()
            dispatcher.start()
            raise
        return Results(
            dispatcher,
            on_error=options.on_error,
            unordered=options.unordered,
            source_error=drawer.error,
        )

    def _manifest(
        self, settings: Settings, options: MapOptions, name: str, digests: tuple[Digest, Digest | None]
    ) -> Manifest:
        is_local = self._engine(settings).share_is_local
        return Manifest(
            job_id=JobId(uuid.uuid4().hex),
            function_name=name,
            label=options.label,
            python=f"{sys.version_info[0]}.{sys.version_info[1]}",
            function=digests[0],
            common=digests[1],
            star=options.star,
            workers=options.workers or settings.workers or self._n_slots(settings),
            chunk_size=options.chunk_size,
            beat_s=BEAT_S[is_local],
            lease_s=LEASE_S[is_local],
            max_attempts=MAX_ATTEMPTS,
            created_s=wall_time(),
            on_error=options.on_error,
            host=socket.gethostname(),
            engine=settings.engine,
            folder=_working_folder(),
            uid=os.geteuid(),
        )

    def _site(self, settings: Settings, share: SharePaths, manifest: Manifest, digest: Digest) -> Site:
        engine = self._engine(settings)
        return Site(
            engine=lambda: engine,
            lock=self._lock,
            argv=(*settings.python, runtime.stage(share), share.job(manifest.job_id).root, digest),
            label=manifest.label or manifest.function_name,
            owner=_owner(),
            share_is_local=engine.share_is_local,
        )

    def _site_of(self, share: SharePaths, manifest: Manifest, digest: Digest) -> Site:
        """Where a job that was found again runs; where its engine is not set up here, we only watch."""
        try:
            site = self._site(self.settings.for_engine(manifest.engine), share, manifest, digest)
        except SettingsError:
            site = self._site(self.settings, share, manifest, digest)
            return replace(site, engine=None)
        return site

    def _share(self, settings: Settings) -> SharePaths:
        if settings.share is None:  # load_settings has seen to it; a hand-made Settings may not
            message = "no share is set: set share in the call or GOLEM_MAGIC_SHARE"
            raise SettingsError(message)
        if "\n" in settings.share:
            message = f"share is {settings.share!r}: Golem's argument lists forbid line breaks, rename it"
            raise SettingsError(message)
        return jobs.make_share(settings.share)

    def _engine(self, settings: Settings) -> Engine:
        with self._lock:
            if settings.engine not in self._engines:
                options = EngineOptions(
                    server_url=settings.server_url,
                    server_password=settings.server_password,
                    workers=settings.workers,
                    state_dir=settings.state_dir,
                )
                self._engines[settings.engine] = load_engine(settings.engine, options)
            return self._engines[settings.engine]

    def _n_slots(self, settings: Settings) -> int:
        engine = self._engine(settings)
        with self._lock:
            return max(1, engine.n_slots() or 1)


def golem_map(
    function: Callable[..., Any], inputs: Iterable[Any], *, engine: str | None = None, **options: Any
) -> Results:
    """Map with the default client, whose settings come from environment, file and defaults.

    Args:
        function: As for :meth:`Client.map`, and so are all options.
        inputs: Anything a ``for`` loop can draw from.
        engine: Another engine than the settings name.
        **options: See :meth:`Client.map`.
    """
    return _default_client().map(function, inputs, engine=engine, **options)


def attach(job_id: str) -> Results:
    """Find a job again with the default client; see :meth:`Client.attach`."""
    return _default_client().attach(job_id)


_defaults: dict[Settings, Client] = {}


def _default_client() -> Client:
    """One client per set of settings: what the environment says may change between two calls."""
    settings = load_settings()
    if settings not in _defaults:
        _defaults[settings] = Client(settings)
    return _defaults[settings]


def _stage_objects(
    share: SharePaths, function: Callable[..., Any], name: str, options: MapOptions
) -> tuple[Digest, Digest | None]:
    function_digest = store.put(share, payload.dump_function(function, name))
    if not options.has_common:
        return function_digest, None
    try:
        frame = payload.dump(options.common)
    except Exception as error:
        message = f"cannot send the common data: {error}; give what it can be made from instead"
        raise PayloadError(message) from error
    return function_digest, store.put(share, frame)


def _stage_inputs(
    writer: InputWriter, drawer: Drawer, block: list[Any], frame: payload.Frame, dispatcher: Dispatcher
) -> None:
    """Write block after block; workers are asked for as soon as there is something for them to do.

    A handful of inputs is written in one go before the dispatcher starts: its
    thread would only get in the way.
    """
    started = False
    while block:
        writer.append(frame, len(block))
        drawer.learn(frame.size, len(block))
        if writer.staged > 1 and not started:
            dispatcher.start()
            started = True
        block = drawer.next_block()
        frame = _dump_inputs(block, writer.staged)
    writer.close()
    dispatcher.close_inputs(writer.staged)
    if not started:
        dispatcher.start()


def _dump_inputs(block: list[Any], first: int) -> payload.Frame:
    try:
        return payload.dump(block)
    except Exception as error:
        for position, each in enumerate(block):
            try:
                payload.dump(each)
            except Exception as reason:
                message = f"input {first + position} ({type(each).__name__}) cannot be pickled: {reason}"
                raise PayloadError(message) from reason
        message = f"inputs {first} to {first + len(block) - 1} cannot be pickled together: {error}"
        raise PayloadError(message) from error


def _picture(manifest: Manifest, paths: JobPaths) -> JobSnapshot:
    """What a job's folder says, without following the job."""
    book = Book(paths)
    book.look()
    n_tasks = count_inputs(paths)
    state = JobState.RUNNING if book.top else JobState.QUEUED
    if n_tasks is not None and book.n_outcomes >= n_tasks:
        state = JobState.DONE
    elif jobs.is_cancelled(paths):
        state = JobState.CANCELLED
    elif n_tasks is None:
        state = JobState.STAGING
    return JobSnapshot(
        job_id=manifest.job_id,
        function=manifest.function_name,
        label=manifest.label,
        state=state,
        n_tasks=n_tasks,
        n_staged=n_tasks if n_tasks is not None else book.n_in_rounds,
        n_done=book.n_outcomes - book.n_failed,
        n_failed=book.n_failed,
        n_running=len(book.open_leases()),
        n_workers=len({log.worker for log in book.open_leases()}),
        elapsed_s=max(0.0, wall_time() - manifest.created_s),
    )


def _refuse_recursion() -> None:
    if "GOLEM_MAGIC_JOB" in os.environ:
        message = (
            f"a task of job {os.environ['GOLEM_MAGIC_JOB'][:8]} tried to start a job of its own: map once "
            f"over all combinations, or use the built-in map inside the task"
        )
        raise InfiniteRecursionError(message)


def _refuse_later(later: dict[str, object]) -> None:
    for name, value in later.items():
        if name not in LATER:
            message = f"unknown option {name!r}; the options are {', '.join(_OPTIONS)}"
            raise SettingsError(message)
        default = LATER[name]
        if type(value) is not type(default) or value != default:  # comparing an array gives no truth value
            message = f"option {name!r} is not available yet: leave it out"
            raise SettingsError(message)


def _checked_function(function: object) -> str:
    if not callable(function):
        message = f"{function!r} cannot be called: the first argument is the function"
        raise SettingsError(message)
    return str(getattr(function, "__name__", type(function).__name__))


def _check_arguments(function: Callable[..., Any], name: str, options: MapOptions, first: list[Any]) -> None:
    """Refuse a function that cannot take what each task will give it, as far as can be told here."""
    n_arguments = 1
    if options.star:
        if not first or not isinstance(first[0], Sized):
            return
        n_arguments = len(first[0])
    n_arguments += options.has_common
    try:  # a wrapper's own arguments count, whatever it wraps
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*[None] * n_arguments)
    except TypeError as error:
        common = ", the common data last" if options.has_common else ""
        given = f"{n_arguments} argument{'s' if n_arguments > 1 else ''}{common}"
        message = f"{name} cannot be called with {given} ({error}): change its parameters, star or common"
        raise SettingsError(message) from error


def _checked_label(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    message = f"label is {value!r}: give text"
    raise SettingsError(message)


def _checked_chunk_size(value: object) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    message = f"chunk_size is {value!r}: give a whole number from 1 up, or 'auto'"
    raise SettingsError(message)


def _checked_on_error(value: object) -> OnError:
    if value == "stop":
        message = "on_error='stop' is not available yet: use 'raise', 'return' or 'skip'"
        raise SettingsError(message)
    if value in get_args(OnError):
        return cast("OnError", value)
    message = f"on_error is {value!r}: give 'raise', 'return' or 'skip'"
    raise SettingsError(message)


def _checked_workers(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    message = f"workers is {value!r}: give a whole number from 1 up"
    raise SettingsError(message)


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed under us
        return "/"


def _owner() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


_OPTIONS = ("common", "chunk_size", "on_error", "workers", "engine", "label", "star", "unordered")
