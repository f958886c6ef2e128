"""The magics themselves."""

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
from golem_magic import options as map_options
from golem_magic.cells import Command, LineOptions, MapLine
from golem_magic.errors import GolemMagicError, JobError
from golem_magic.magics import commands
from golem_magic.magics.completion import make_matcher
from golem_magic.magics.mappable import make_mappable
from golem_magic.magics.notice import Notice, on_the_share
from golem_magic.magics.placed import importing, taken_from
from golem_magic.magics.repeats import Repeats
from golem_magic.magics.running import Shell, evaluate, read_cell
from golem_magic.magics.values import all_names, function_to_map, is_unfinished, progress_of
from golem_magic.settings import load_settings

if TYPE_CHECKING:
    from golem_magic.client import Client
    from golem_magic.progress import JobView
    from golem_magic.results import Results

_WAIT_STEP_S = 0.5  # on every platform an interrupt ends a wait after a step at the latest
_OURS = {"out", "function", "wait", "no_reuse"}  # options that are no keywords of a map


def _with_options(magic: str) -> Callable[[Any], Any]:
    """Put the options of a magic into its help."""

    def documented(method: Any) -> Any:
        lines = ("\n" + 12 * " ").join(cells.help_on(magic))
        method.__doc__ = method.__doc__.replace("{options}", lines)
        return method

    return documented


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
        self.matcher = make_matcher(shell.user_ns, self.job_ids)
        self._repeats = Repeats()
        self.notice = Notice(on_the_share if make_client is None else lambda: ())
        self.heard = {"pre_run_cell": self.notice.cell_begins, "post_run_cell": self.end_cell}

    @no_var_expand
    @cell_magic
    @_with_options("%%golemize")
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

            {options}

        EXPR is an expression that ends at the first blank or comma outside brackets and quotes.
        Examples::

            %%golemize range(1000)
            %%golemize -o effects -c table --label "with a table" range(1000)
            %%golemize images --setup load_model --timeout 60 --retries 2 --retry-on (OSError, ValueError)
            %%golemize endless() --stream --keep unread --disk-budget 2G
        """
        __tracebackhide__ = True
        self.notice.want()
        with _short_errors():
            asked = _checked(cells.parse_cell_line(line))
        body = read_cell(self._shell, cell)
        with _short_errors():
            name = cells.function_in_cell(body.source, asked.options.function)
        body.run(self._shell)
        names = self._shell.user_ns
        with _short_errors():
            function = function_to_map(names.get(name), name)
        keywords = self._keywords(asked.options, names)
        if asked.inputs is None:
            with _short_errors():
                make_mappable(self.submit, function, keywords)
            return
        inputs = evaluate(self._shell, asked.inputs, names)
        with _short_errors():
            keywords |= self._repeats.keywords(line, cell, asked.options)
        self._map(function, inputs, keywords, asked.options, out=asked.options.out or f"{name}_results")

    @no_var_expand
    @needs_local_scope
    @output_can_be_silenced
    @line_magic
    @_with_options("%golem_map")
    def golem_map(self, line: str, local_ns: Mapping[str, Any] | None = None) -> "Results | None":
        """Map a function that is there already, and give the results.

        ::

            %golem_map [options] FUNCTION INPUTS
            results = %golem_map FUNCTION INPUTS

        FUNCTION is an expression that ends at the first blank or comma outside brackets and quotes;
        INPUTS is the rest of the line, as an expression. A comma may stand between them. FILE::NAME takes
        the function out of a notebook (.ipynb), a script (.py) or a module. Examples::

            %golem_map square range(1000)
            %golem_map (lambda x: x + 1) [x**2 for x in xs if x] -o powers
            %golem_map analysis.ipynb::score range(1000)
            %golem_map -c {"scale": 3} --on-error skip stretch, images

        Options, before or after::

            {options}
        """
        __tracebackhide__ = True
        self.notice.want()
        with _short_errors():
            asked = _checked(cells.parse_map_line(line))
        assert asked.function is not None
        assert asked.inputs is not None
        names = all_names(self._shell.user_ns, local_ns)
        with _short_errors():
            taken = taken_from(asked.function)
        value = evaluate(self._shell, asked.function, names) if taken is None else taken.function
        with _short_errors():
            function = function_to_map(value, asked.function)
        keywords = self._keywords(asked.options, names)
        inputs = evaluate(self._shell, asked.inputs, names)
        with importing(taken, quiet=asked.options.quiet):
            return self._map(function, inputs, keywords, asked.options, out=asked.options.out)

    @line_magic
    def golem(self, line: str) -> "Results | None":
        """Look after jobs that are there already, and after settings and space.

        ::

            %golem jobs                              list the jobs
            %golem attach JOB [-o NAME]              get the results of one back, also in another kernel
            %golem cancel JOB|NAME                   cancel one, by its id or by the variable of its results
            %golem retry JOB|NAME [-o NAME]          run again what failed, on the same inputs
            %golem logs JOB|NAME [TASK]              what its workers wrote; with TASK, the one that had it
            %golem nodes                             the engine's machines, their slots, how many are taken
            %golem config                            the settings, and where each comes from
            %golem config KEY=VALUE                  change one for this kernel; KEY= takes that back
            %golem clean [--dry-run] [LIMITS]        remove old jobs: --older DAYS --max-size 20G --max-jobs N

        JOB is an id or so much of its beginning that only one job is meant; $name and {expression} stand
        for their values. Examples::

            %golem attach 3f9a -o effects
            %golem logs effects 17
            %golem config workers=4
            %golem clean --dry-run --older 1.5
        """
        __tracebackhide__ = True
        self.notice.want()
        with _short_errors():
            command = cells.parse_command(line)
            match command.word:
                case "attach":
                    results = self.client.attach(command.job)
                    self._show(results, quiet=False)
                    return self._bind(results, command.out)
                case "retry":
                    return self._bind(self._retry(command.job), command.out)
                case "config":
                    self._config(command)
                case _:
                    if command.word == "jobs":
                        self.notice.drop()
                    commands.run(self.client, command, self._job_id(command.job))
        return None

    def _retry(self, job: str) -> "Results":
        """Run what failed again, and show the job."""
        value = self._shell.user_ns.get(job)
        results: Results = self.client.attach(job) if progress_of(value) is None else value
        if not results.progress.n_failed:
            message = f"job {results.job_id[:8]} has no failed tasks: nothing to retry"
            raise JobError(message)
        self._show(results.retry_errors(), quiet=False)
        return results

    def _config(self, command: Command) -> None:
        """Show or change settings; the next map has a client with the new ones."""
        is_question = command.value is None and command.key not in commands.PASSWORDS
        if is_question or not command.key:
            commands.show_config(command.key)
            return
        commands.configure(command.key, command.value)
        self._forget_client()

    def _job_id(self, job: str) -> str:
        """Give the id of the job whose results a variable holds, or else what was said."""
        value = self._shell.user_ns.get(job)
        if job.isidentifier() and not set(job) <= set("0123456789abcdef") and progress_of(value) is None:
            message = f"{job} is neither a variable with results nor a job's id: %golem jobs lists the jobs"
            raise JobError(message)
        return job if progress_of(value) is None else str(value.job_id)

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
        self._repeats.tell(results)
        self._show(results, quiet=quiet)
        return results

    def end_cell(self, _result: object = None) -> None:
        """Show under a cell that ends what belongs there."""
        self.refresh_views()
        self.notice.cell_ends()

    def refresh_views(self) -> None:
        """Draw all jobs that have not ended, from the main thread, after every cell.

        A run without a browser keeps only what is published while a cell runs.
        """
        for _results, view in self._shown:
            view.refresh()
        self._shown = [(results, view) for results, view in self._shown if is_unfinished(results)]

    def name_file(self, file: str) -> str | None:
        """Give the name that the shell's own tracebacks have for a cell: remote lines get it too."""
        found = self._shell.compile.format_code_name(file)
        return " ".join(found) if found else None

    def close(self) -> None:
        """Let go of the client; jobs run on."""
        self._shown.clear()
        self._forget_client()

    def job_ids(self) -> list[str]:
        """The ids of all jobs, for completion, which must not fail."""
        try:
            return list(self.client.inventory.ids())
        except GolemMagicError:
            return []

    def _forget_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _keywords(self, options: LineOptions, names: dict[str, Any]) -> dict[str, Any]:
        """Turn what the line said into keywords of :meth:`submit`; what it did not say stays away."""
        __tracebackhide__ = True
        said = {name: value for name, value in options.values().items() if name not in _OURS}
        return said | {
            name: evaluate(self._shell, text, names) for name, text in options.expressions().items()
        }

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
        if is_unfinished(replaced) and replaced.job_id != results.job_id:
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


def load(shell: Shell, *, make_client: "Callable[[], Client] | None" = None) -> None:
    """Register magics and completion; cheap, since kernels may do it at every start."""
    unload(shell)
    magics = GolemMagics(shell, make_client=make_client)
    outcomes.call_files(magics.name_file)
    shell.register_magics(magics)
    for event, heard in magics.heard.items():
        shell.events.register(event, heard)
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
    for event, heard in magics.heard.items():
        shell.events.unregister(event, heard)
    if magics.matcher in getattr(getattr(shell, "Completer", None), "custom_matchers", ()):
        shell.Completer.custom_matchers.remove(magics.matcher)
    outcomes.call_files(outcomes.own_name)
    magics.close()


def _checked(asked: MapLine) -> MapLine:
    """Refuse values that are not allowed before anything is run."""
    values = asked.options.values()
    map_options.checked({name: value for name, value in values.items() if name in map_options.DEFAULTS})
    return asked


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
