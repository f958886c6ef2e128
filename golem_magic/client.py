"""Putting the pieces together for one map; finding a job again; the default client."""

import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from golem_magic import payload, surroundings
from golem_magic import reuse as followed
from golem_magic.clock import SystemClock, wall_time
from golem_magic.dispatcher import Dispatcher, Site
from golem_magic.engines.base import Engine, EngineOptions, TellsNodes
from golem_magic.engines.registry import find_engine, load_engine
from golem_magic.errors import EngineError, SettingsError
from golem_magic.feeder import Feeder
from golem_magic.inputs import Drawer
from golem_magic.inventory import Inventory
from golem_magic.model import Digest, JobId, JobSnapshot, Keep, MapOptions, Node, OnError
from golem_magic.options import NOT_GIVEN, check_arguments, checked, function_name
from golem_magic.options import on_error as check_on_error
from golem_magic.results import Results, Retries
from golem_magic.settings import Settings, hide_secrets, load_settings
from golem_magic.share import jobs, runtime, source_error, store
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import SharePaths

BEAT_S = {True: 1.0, False: 5.0}  # by "all workers are on this machine"
LEASE_S = {True: 10.0, False: 90.0}
MAX_ATTEMPTS = 3


class Digests(NamedTuple):
    """The objects of a job on the share."""

    function: Digest
    common: Digest | None
    setup: Digest | None


class Client:
    """One set of settings, its share and its engine; maps functions and finds jobs again.

    Any setting may be given as a keyword (``engine``, ``share``, ``server_url``, ``workers``, ...); what is
    not given comes from the environment, the settings file and the defaults. Nothing is started or
    written before the first map.
    """

    def __init__(self, settings: Settings | None = None, **overrides: object) -> None:
        hide_secrets(overrides)  # or tools that show the variables of a traceback would show them
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
        kwargs: bool = False,
        unordered: bool = False,
        retries: int = 0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        timeout: float | None = None,
        setup: Callable[[], Any] | None = None,
        stream: bool = False,
        keep: Keep = "all",
        disk_budget: int | None = None,
        resources: str | Mapping[str, str | int] | None = None,
        error_log: str | os.PathLike[str] | None = None,
        reuse: bool = False,
        **more: object,
    ) -> Results:
        """Run ``function`` on every input, on the engine; give its results as a lazy sequence.

        The calling thread draws all inputs before the call returns, while
        workers already run on the first of them; what is changed afterwards
        changes nothing.

        Args:
            function: Called as ``function(x)``, or ``function(x, common)`` if common data is given,
                with the set-up value last if there is a ``setup``.
            inputs: Anything a ``for`` loop can draw from, or a data frame's rows; read once, in order.
            common: Data that every task gets; stored once. An explicit None counts as given.
            chunk_size: Tasks per lease, >= 1; "auto" follows the measured speed.
            on_error: At a failed task an iterator raises, returns the exception, or skips; "stop"
                cancels the job at the first failure.
            workers: How many to place; None: as many as the engine has slots.
            engine: Another engine than the settings name.
            label: Free text shown with the job.
            star: Unpack each input into positional arguments.
            kwargs: Unpack each input, a mapping, into arguments by name; common data then comes first.
            unordered: Iterate in the order in which results come.
            retries: How often a task that raised is tried again, with growing pauses.
            retry_on: Exceptions that are worth another try; None: every Exception.
            timeout: Longest time of one task in seconds; a task that takes longer is ended.
            setup: Called once per worker, without arguments; its value goes to every task.
            stream: Draw the inputs in a thread beside the notebook, a window ahead of the work.
            keep: "unread" frees a result's space once the iterator has passed it.
            disk_budget: Most bytes of results on the share that nobody has read yet.
            resources: What each worker may have, such as ``"memory=2G"``: a task that makes its worker
                use more is ended, and fails if that happens again.
            error_log: File to which workers append each failure that they record, with input and traceback.
            reuse: If this process follows a job that is the same, runs and has no failures, give new results
                of that one instead of starting another.
            **more: Options that are not available yet; refused unless they are at their default.

        Raises:
            PayloadError: The function, the common data or an input cannot be pickled.
            ShareError: The share cannot be written.
            InfiniteRecursionError: Called from inside a task.
            GolemMagicError: An option is wrong. Nothing was submitted.
        """
        said = {
            "common": common,
            "chunk_size": chunk_size,
            "on_error": on_error,
            "workers": workers,
            "label": label,
            "star": star,
            "kwargs": kwargs,
            "unordered": unordered,
            "retries": retries,
            "retry_on": retry_on,
            "timeout": timeout,
            "setup": setup,
            "stream": stream,
            "keep": keep,
            "disk_budget": disk_budget,
            "resources": resources,
            "error_log": error_log,
            "reuse": reuse,
        }
        options = checked({**said, **more})
        return self._map(function, inputs, options, engine)

    def attach(self, job_id: str, *, on_error: OnError | None = None) -> Results:
        """Find a job again by its id or an unambiguous beginning of it; continue what its client did.

        Raises:
            ShareError: There is no such job, or several.
            FormatError: It was made by another version.
        """
        share = self._share(self.settings)
        dispatcher = self._follow(share, jobs.find_job(share, str(job_id)))
        policy = check_on_error(on_error or dispatcher.manifest.on_error)
        retries = self._retries(share, dispatcher)
        retries.look()
        dispatcher.start()
        followed.note(dispatcher)
        error = partial(source_error.read, dispatcher.paths)
        return Results(dispatcher, retries, on_error=policy, source_error=error)

    @property
    def inventory(self) -> Inventory:
        """The jobs on the share: their logs, and cleaning up."""
        return Inventory(self._share(self.settings), self._clock)

    def jobs(self) -> list[JobSnapshot]:
        """All jobs on the share, newest first, as their folders show them now."""
        return self.inventory.jobs()

    def cancel(self, job_id: str) -> JobId:
        """Cancel a job by its id or an unambiguous beginning of it; give the whole id.

        Raises:
            ShareError: There is no such job, or its folder cannot be written.
        """
        return self.inventory.cancel(job_id)

    def nodes(self) -> list[Node]:
        """The machines of the engine, with their slots, as it knows them now.

        Raises:
            EngineError: It was not reached, or does not know.
        """
        engine = self._engine(self.settings)
        if not isinstance(engine, TellsNodes):
            message = f"the engine {self.settings.engine} does not tell its nodes"
            raise EngineError(message)
        with self._lock:
            return engine.nodes()

    def close(self) -> None:
        """Let go of the engines. Jobs go on; closing twice is harmless."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()

    def _map(
        self, function: Callable[..., Any], inputs: Iterable[Any], options: MapOptions, engine: str | None
    ) -> Results:
        surroundings.refuse_recursion()
        settings = self._settings_for(engine)
        name = function_name(function)
        n_slots = self._n_slots(settings)  # an engine that is not there is told before an input is drawn
        drawer = Drawer(inputs, star=options.star, kwargs=options.kwargs)
        first = drawer.next_block()
        check_arguments(function, name, options, first)
        packer = payload.Packer()
        frame = packer.inputs(first, 0)  # what cannot be sent is told before anything is written
        objects = _pack_objects(packer, function, name, options)
        share = self._share(settings)
        digests = _stage_objects(share, objects, options)
        manifest = self._manifest(settings, options, name, digests, n_slots)
        paths = share.job(manifest.job_id)
        manifest_digest = jobs.make_job(paths, manifest)
        writer = InputWriter(paths, through=not manifest.share_is_local)
        twin = followed.running_like(manifest, paths) if options.reuse else None
        if twin and followed.has_same_inputs(twin, paths, writer, drawer, packer, (first, frame)):
            return self._results(share, twin, options)
        site = self._site(settings, share, manifest, manifest_digest)
        dispatcher = Dispatcher(paths, manifest, site, self._clock, staging=writer)
        feeder = Feeder(writer, drawer, dispatcher, packer, None if twin else (first, frame), self._clock)
        del first, frame  # they are the feeder's now, which lets go of them
        followed.note(dispatcher)
        feeder.feed(options)
        if settings.auto_clean:
            Inventory(share, self._clock).clean_daily(manifest.job_id)
        return self._results(share, dispatcher, options, lambda: drawer.error)

    def _settings_for(self, engine: str | None) -> Settings:
        if not engine:
            return self.settings
        find_engine(engine)  # a wrong name is told as such, not as the lack of its share
        return self.settings.for_engine(engine)

    def _results(
        self,
        share: SharePaths,
        dispatcher: Dispatcher,
        options: MapOptions,
        source_error: Callable[[], Exception | None] = lambda: None,
    ) -> Results:
        return Results(
            dispatcher,
            self._retries(share, dispatcher),
            on_error=options.on_error,
            unordered=options.unordered,
            source_error=source_error,
        )

    def _manifest(
        self, settings: Settings, options: MapOptions, name: str, digests: Digests, n_slots: int
    ) -> Manifest:
        is_local = self._engine(settings).share_is_local
        lease_s = float(settings.silence_s or LEASE_S[is_local])
        return Manifest(
            job_id=JobId(uuid.uuid4().hex),
            function_name=name,
            label=options.label,
            python=f"{sys.version_info[0]}.{sys.version_info[1]}",
            function=digests.function,
            common=digests.common,
            setup=digests.setup,
            star=options.star,
            kwargs=options.kwargs,
            workers=options.workers or settings.workers or n_slots,
            chunk_size=options.chunk_size,
            beat_s=min(BEAT_S[is_local], lease_s / 5),
            lease_s=lease_s,
            timeout_s=options.timeout_s,
            memory_bytes=options.memory_bytes,
            error_log=options.error_log,
            retries=options.retries,
            retry_on=options.retry_on,
            keep=options.keep,
            max_attempts=MAX_ATTEMPTS,
            created_s=wall_time(),
            on_error=options.on_error,
            host=socket.gethostname(),
            engine=settings.engine,
            folder=surroundings.working_folder(),
            uid=os.geteuid(),
            share_is_local=is_local,
        )

    def _site(self, settings: Settings, share: SharePaths, manifest: Manifest, digest: Digest) -> Site:
        engine = self._engine(settings)
        there = SharePaths(share.root if engine.share_is_local else settings.share_on_workers or share.root)
        runtime.stage(share)
        return Site(
            engine=lambda: engine,
            lock=self._lock,
            argv=(*settings.python, there.runtime(runtime.digest()), there.job(manifest.job_id).root, digest),
            label=manifest.label or manifest.function_name,
            owner=settings.owner or surroundings.owner(),
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

    def _follow(self, share: SharePaths, job_id: JobId) -> Dispatcher:
        """A dispatcher, not yet started, of a job that is on the share already."""
        paths = share.job(job_id)
        manifest = jobs.read_manifest(paths)
        site = self._site_of(share, manifest, jobs.manifest_digest(paths))
        return Dispatcher(paths, manifest, site, self._clock)

    def _retries(self, share: SharePaths, dispatcher: Dispatcher) -> Retries:
        return Retries(share, dispatcher, lambda job_id: self._follow(share, job_id))

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
                said = {each.name: getattr(settings, each.name) for each in fields(EngineOptions)}
                options = EngineOptions(**said)
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


def _pack_objects(
    packer: payload.Packer, function: Callable[..., Any], name: str, options: MapOptions
) -> tuple[payload.Frame, ...]:
    """Pickle common data, function and set-up function, those that there are; see Packer for the order."""
    common = [packer.common(options.common)] if options.has_common else []
    packed = packer.function(function, name)
    setup = [packer.function(options.setup, "the set-up function")] if options.setup else []
    return (*common, packed, *setup)


def _stage_objects(share: SharePaths, objects: tuple[payload.Frame, ...], options: MapOptions) -> Digests:
    digests = [store.put(share, each) for each in objects]
    common = digests.pop(0) if options.has_common else None
    return Digests(digests[0], common, digests[1] if options.setup else None)
