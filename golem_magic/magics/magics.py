"""The magics themselves."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
    output_can_be_silenced,
)
from traitlets import Bool

from golem_magic import cells, outcomes
from golem_magic.cells import LineOptions
from golem_magic.errors import CellError, GolemMagicError
from golem_magic.magics.completion import make_matcher
from golem_magic.magics.mappable import make_mappable
from golem_magic.magics.running import Shell, evaluate, read_cell
from golem_magic.model import JobSnapshot, JobState
from golem_magic.settings import load_settings

if TYPE_CHECKING:
    from golem_magic.client import Client
    from golem_magic.progress import JobView
    from golem_magic.results import Results

_WAIT_STEP_S = 0.5  # on every platform an interrupt ends a wait after a step at the latest
_PASSED_ON = {"on_error", "workers", "engine", "label", "star", "unordered", "quiet"}


@magics_class
class GolemMagics(Magics):
    """Maps the notebook's functions as Golem jobs."""

    interrupt_cancels = Bool(
        default_value=False,
        help="Whether an interrupt of --wait also cancels the job; else it only stops waiting.",
    ).tag(config=True)

    def __init__(self, shell: Shell, *, make_client: "Callable[[], Client] | None" = None) -> None:
        super().__init__(shell)
        self._shell = shell
        self._make_client = make_client or _default_client
        self._client: Client | None = None
        self._shown: list[tuple[Results, JobView]] = []  # jobs that had not ended when last looked at
        self.matcher = make_matcher(shell.user_ns)

    @no_var_expand
    @cell_magic
    def golemize(self, line: str, cell: str) -> None:
        """Run this cell, then map the function it defines.

        ::

            %%golemize [options] [INPUTS]

        INPUTS is an expression, evaluated after the cell ran; quotes around it are not needed. The
        function is the last one that the cell defines, or ``-f NAME``. It is called as ``f(x)``, or as
        ``f(x, common)`` with ``-c``. The prompt comes back at once, and NAME is bound to the results,
        which can be iterated while the job runs. Without INPUTS the function becomes mappable:
        ``f(x)`` still runs here, ``f.map(inputs, **options)`` goes to the engine.

        Options, before or after INPUTS::

            -o, --out NAME         variable for the results; default: the function's name + _results
            -c, --common EXPR      data for every task, as the second argument; a tuple goes into brackets
            -f, --function NAME    the function, if not the last one of the cell
            --chunk-size N|auto    tasks that travel together; auto follows the speed  (or --task-size)
            --on-error WORD        what iterating does at a failed task: raise, return or skip
            --workers N            how many workers to place
            --engine NAME          which engine places them
            --label TEXT           shown with the job; quotes around blanks
            --star                 unpack each input: f(*x)
            --unordered            iterate in the order in which results come
            --wait                 wait here for the end of the job; an interrupt only stops waiting
            --quiet                no progress view
        """
        __tracebackhide__ = True
        with _short_errors():
            asked = cells.parse_cell_line(line)
        body = read_cell(self._shell, cell)
        with _short_errors():
            name = cells.function_in_cell(body.source, asked.options.function)
        body.run(self._shell)
        names = self._shell.user_ns
        with _short_errors():
            function = _callable(names.get(name), name)
        keywords = self._keywords(asked.options, names)
        if asked.inputs is None:
            with _short_errors():
                make_mappable(self.submit, function, keywords)
            return
        inputs = evaluate(self._shell, asked.inputs, names)
        self._map(function, inputs, keywords, asked.options, out=asked.options.out or f"{name}_results")

    @no_var_expand
    @needs_local_scope
    @output_can_be_silenced
    @line_magic
    def golem_map(self, line: str, local_ns: Mapping[str, Any] | None = None) -> "Results | None":
        """Map a function that is there already, and give the results.

        ::

            %golem_map [options] FUNCTION INPUTS
            results = %golem_map FUNCTION INPUTS

        FUNCTION is an expression that ends at the first blank or comma outside brackets and quotes;
        INPUTS is the rest of the line, as an expression. A comma may stand between them::

            %golem_map square range(1000)
            %golem_map (lambda x: x + 1) [x**2 for x in xs if x] -o powers

        Options, before or after::

            -o, --out NAME         bind the results to this variable instead of giving them
            -c, --common EXPR      data for every task, as the second argument; a tuple goes into brackets
            --chunk-size N|auto    tasks that travel together; auto follows the speed  (or --task-size)
            --on-error WORD        what iterating does at a failed task: raise, return or skip
            --workers N            how many workers to place
            --engine NAME          which engine places them
            --label TEXT           shown with the job; quotes around blanks
            --star                 unpack each input: f(*x)
            --unordered            iterate in the order in which results come
            --wait                 wait here for the end of the job; an interrupt only stops waiting
            --quiet                no progress view
        """
        __tracebackhide__ = True
        with _short_errors():
            asked = cells.parse_map_line(line)
        assert asked.function is not None
        assert asked.inputs is not None
        names = _names(self._shell.user_ns, local_ns)
        value = evaluate(self._shell, asked.function, names)
        with _short_errors():
            function = _callable(value, asked.function)
        keywords = self._keywords(asked.options, names)
        inputs = evaluate(self._shell, asked.inputs, names)
        return self._map(function, inputs, keywords, asked.options, out=asked.options.out)

    @line_magic
    def golem(self, line: str) -> "Results | None":
        """See to jobs that are there already.

        ::

            %golem jobs                  list them
            %golem attach JOB [-o NAME]  get the results of one back, also in another kernel
            %golem cancel JOB|NAME       cancel one, by its id or by the variable of its results

        JOB is an id or so much of its beginning that only one job is meant.
        """
        __tracebackhide__ = True
        with _short_errors():
            command = cells.parse_command(line)
            match command.word:
                case "attach":
                    results = self.client.attach(command.job)
                    self._show(results, quiet=False)
                    return self._bind(results, command.out)
                case "cancel":
                    self._cancel(command.job)
                case _:
                    from golem_magic.progress.tables import job_table

                    sys.stdout.write(job_table(self.client.jobs()))
        return None

    @property
    def client(self) -> "Client":
        """The client of all maps, made with the settings of the moment when it is first needed."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def submit(
        self, function: Callable[..., Any], inputs: Iterable[Any], *, quiet: bool = False, **options: Any
    ) -> "Results":
        """Start a job and show it here; ``options`` are those of ``Client.map``."""
        results = self.client.map(function, inputs, **options)
        self._show(results, quiet=quiet)
        return results

    def refresh_views(self, _result: object = None) -> None:
        """Draw all jobs that have not ended, from the main thread, after every cell.

        A run without a browser keeps only what is published while a cell runs.
        """
        for _results, view in self._shown:
            view.refresh()
        self._shown = [(results, view) for results, view in self._shown if _is_unfinished(results)]

    def name_file(self, file: str) -> str | None:
        """Give the name that the shell's own tracebacks have for a cell: remote lines get it too."""
        found = self._shell.compile.format_code_name(file)
        return " ".join(found) if found else None

    def close(self) -> None:
        """Let go of the client; jobs run on."""
        client, self._client = self._client, None
        self._shown.clear()
        if client is not None:
            client.close()

    def _keywords(self, options: LineOptions, names: dict[str, Any]) -> dict[str, Any]:
        """Turn what the line said into keywords of :meth:`submit`; what it did not say stays away."""
        __tracebackhide__ = True
        keywords = {name: getattr(options, name) for name in options.given & _PASSED_ON}
        if options.common is not None:
            keywords["common"] = evaluate(self._shell, options.common, names)
        if "chunk_size" in options.given:
            keywords["chunk_size"] = options.chunk_size or "auto"
        return keywords

    def _map(
        self,
        function: Callable[..., Any],
        inputs: Iterable[Any],
        keywords: Mapping[str, Any],
        options: LineOptions,
        *,
        out: str | None,
    ) -> "Results | None":
        __tracebackhide__ = True
        with _short_errors():
            results = self.submit(function, inputs, **keywords)
        bound = self._bind(results, out)
        if options.wait:
            self._wait(results)
        return bound

    def _show(self, results: "Results", *, quiet: bool) -> None:
        from golem_magic.progress import JobView

        view = JobView(lambda: results.progress, cancel=results.cancel, quiet=quiet).show()
        if not quiet:
            self._shown.append((results, view))

    def _bind(self, results: "Results", name: str | None) -> "Results | None":
        """Bind the results if there is a name for them, else hand them on."""
        if name is None:
            return results
        replaced = self._shell.user_ns.get(name)
        self._shell.push({name: results})
        if replaced is not results and _is_unfinished(replaced):
            job = replaced.job_id[:8]
            sys.stderr.write(
                f"{name} held the results of job {job}, which goes on: get them back with "
                f"%golem attach {job} -o NAME, or end it with %golem cancel {job}\n"
            )
        return None

    def _wait(self, results: "Results") -> None:
        job = results.job_id[:8]
        try:
            while not results.wait(_WAIT_STEP_S):
                pass
        except KeyboardInterrupt:
            if self.interrupt_cancels:
                results.cancel()
                sys.stdout.write(f"stopped waiting; job {job} is cancelled\n")
            else:
                sys.stdout.write(f"stopped waiting; job {job} goes on - cancel it with %golem cancel {job}\n")

    def _cancel(self, job: str) -> None:
        """Cancel on the share, so that a job that this kernel has given up ends for all others too."""
        value = self._shell.user_ns.get(job)
        job_id = self.client.cancel(job if _progress(value) is None else value.job_id)
        is_done = any(each.job_id == job_id and each.state is JobState.DONE for each in self.client.jobs())
        fate = (
            "was over already: nothing to cancel" if is_done else "is cancelled; results that are there stay"
        )
        sys.stdout.write(f"job {job_id[:8]} {fate}\n")


def load(shell: Shell, *, make_client: "Callable[[], Client] | None" = None) -> None:
    """Register magics and completion; cheap, since kernels may do it at every start."""
    unload(shell)
    magics = GolemMagics(shell, make_client=make_client)
    outcomes.call_files(magics.name_file)
    shell.register_magics(magics)
    shell.events.register("post_run_cell", magics.refresh_views)
    if getattr(shell, "Completer", None) is not None:
        shell.Completer.custom_matchers.append(magics.matcher)


def unload(shell: Shell) -> None:
    """Take out what :func:`load` put in; harmless where nothing is loaded."""
    manager = shell.magics_manager
    magics = manager.registry.pop("GolemMagics", None)
    if magics is None:
        return
    for kind, names in magics.magics.items():
        for name in names:
            manager.magics[kind].pop(name, None)
    shell.configurables.remove(magics)
    shell.events.unregister("post_run_cell", magics.refresh_views)
    if magics.matcher in getattr(getattr(shell, "Completer", None), "custom_matchers", ()):
        shell.Completer.custom_matchers.remove(magics.matcher)
    outcomes.call_files(outcomes.own_name)
    magics.close()


def _default_client() -> "Client":
    from golem_magic.client import Client

    return Client(load_settings())


@contextmanager
def _short_errors() -> Iterator[None]:
    """Turn our own complaints into the shell's one-line errors, which still stop a "run all"."""
    __tracebackhide__ = True
    try:
        yield
    except GolemMagicError as error:
        raise UsageError(str(error)) from None


def _names(user_ns: dict[str, Any], local_ns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give one namespace for expressions: a comprehension in them sees globals only."""
    return user_ns if local_ns is None or local_ns is user_ns else {**user_ns, **local_ns}


def _callable(value: object, text: str) -> Callable[..., Any]:
    if not callable(value):
        message = f"{text} cannot be mapped: it is a {type(value).__name__}, not a function"
        raise CellError(message)
    if inspect.iscoroutinefunction(value):
        message = (
            f"{text} is an async def and cannot be mapped: write a def that calls asyncio.run({text}(x))"
        )
        raise CellError(message)
    return value


def _progress(value: Any) -> JobSnapshot | None:
    """Give the snapshot of results, None for anything else.

    Asked of the type first: objects that answer to every name must not be taken for results.
    """
    if not hasattr(type(value), "progress"):
        return None
    progress = value.progress
    return progress if isinstance(progress, JobSnapshot) else None


def _is_unfinished(value: object) -> bool:
    try:
        progress = _progress(value)
    except GolemMagicError:  # the share is gone: nothing to be seen there any more
        return False
    return progress is not None and not progress.state.is_final
