"""The words of ``%golem`` for a shell, and what only a shell needs: ``golem-magic``."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import golem_magic
from golem_magic.errors import EngineError, GolemMagicError
from golem_magic.model import JobState

if TYPE_CHECKING:
    from golem_magic.autoload import Autoload
    from golem_magic.settings import Settings

WAIT_STEP_S = 0.5  # on every platform an interrupt ends a wait after a step at the latest
INTERRUPTED = 130  # as a shell says it
FOREVER = "inf"
MAX_HOURS = 8784  # a year
RESULTS = ".jsonl, .csv, .tsv or .pickle, in the order of the inputs"
MAP_OPTIONS = ("star", "workers", "engine", "label", "chunk_size", "retries", "timeout", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; give the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.act(arguments)
        sys.stdout.flush()
    except GolemMagicError as error:
        sys.stderr.write(f"golem-magic: {error}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


# --- what the words do ---


def _serve(arguments: argparse.Namespace) -> int:
    """Become the embedded Golem, so that the terminal's Ctrl-C is its own."""
    from golem_magic.engines.local import MASTER, default_state_dir
    from golem_magic.settings import load_settings

    settings = load_settings()
    state = os.path.expanduser(arguments.state or settings.state_dir or default_state_dir())
    command = [*MASTER, "--state", state, "--port", str(arguments.port), "--linger", arguments.linger]
    if n_slots := arguments.slots or settings.workers:
        command += ["--slots", str(n_slots)]
    if arguments.open_reads:
        command.append("--open-reads")
    sys.stdout.flush()
    os.execv(command[0], command)


def _jobs(_: argparse.Namespace) -> int:
    from golem_magic.client import Client
    from golem_magic.progress.tables import job_table

    with Client() as client:
        sys.stdout.write(job_table(client.jobs()))
    return 0


def _attach(arguments: argparse.Namespace) -> int:
    """Follow a job to its end with a line on stderr; 0 if every task gave a value."""
    if arguments.out is None:
        return _follow(arguments.job, retry=False)
    from golem_magic.client import Client
    from golem_magic.filemap import check_output, save_results

    check_output(arguments.out)
    with Client() as client:
        return save_results(client.attach(arguments.job, on_error="return"), arguments.out)


def _retry(arguments: argparse.Namespace) -> int:
    """Run again what failed, and follow the job as above."""
    return _follow(arguments.job, retry=True)


def _follow(job_id: str, *, retry: bool) -> int:
    from golem_magic.client import Client
    from golem_magic.progress import JobView

    with Client() as client:
        results = client.attach(job_id)
        if retry:
            results.retry_errors()
        try:
            view = JobView(lambda: results.progress).show()
            while not results.wait(WAIT_STEP_S):
                pass
        except KeyboardInterrupt:
            job = results.job_id[:8]
            sys.stderr.write(
                f"\nstopped waiting; job {job} goes on - cancel it with golem-magic cancel {job}\n"
            )
            return INTERRUPTED
        view.refresh()
        end = results.progress
    return 0 if end.state is JobState.DONE and not end.n_failed else 1


def _map(arguments: argparse.Namespace) -> int:
    """Map a function of one file over the inputs of another."""
    from golem_magic.client import Client
    from golem_magic.filemap import Request, map_files

    said = {name: getattr(arguments, name) for name in MAP_OPTIONS}
    request = Request(
        function=arguments.function,
        inputs=arguments.inputs,
        out=arguments.out,
        common=arguments.common,
        setup=arguments.setup,
        options={name: value for name, value in said.items() if value is not None},
    )
    with Client() as client:
        return map_files(client, request)


def _cancel(arguments: argparse.Namespace) -> int:
    from golem_magic.client import Client

    with Client() as client:
        job_id = client.cancel(arguments.job)
        is_done = any(each.job_id == job_id and each.state is JobState.DONE for each in client.jobs())
    fate = "was over already: nothing to cancel" if is_done else "is cancelled; results that are there stay"
    sys.stdout.write(f"job {job_id[:8]} {fate}\n")
    return 0


def _clean(arguments: argparse.Namespace) -> int:
    from golem_magic.client import Client

    with Client() as client:
        done = client.inventory.clean(
            older_days=arguments.older,
            max_bytes=arguments.max_size,
            max_jobs=arguments.max_jobs,
            dry_run=arguments.dry_run,
        )
    sys.stdout.write(done.describe())
    return 0


def _nodes(arguments: argparse.Namespace) -> int:
    from golem_magic.client import Client
    from golem_magic.progress.tables import node_table

    with Client() as client:
        if arguments.last is None:
            sys.stdout.write(node_table(client.nodes()))
        else:
            sys.stdout.write(_usage(client.settings, 3600 * arguments.last))
    return 0


def _usage(settings: "Settings", last_s: float) -> str:
    """What the embedded Golem has noted, as a table."""
    from golem_magic.engines.local import default_state_dir
    from golem_magic.engines.usage import read_usage
    from golem_magic.progress.tables import usage_table

    if settings.engine != "local":
        message = (
            f"engine {settings.engine} keeps no record of its use, only the embedded Golem of local does"
        )
        raise EngineError(message)
    state = os.path.expanduser(settings.state_dir or default_state_dir())
    begin_s, records = read_usage(Path(state), last_s)
    return usage_table(records, begin_s=begin_s, last_s=last_s)


def _config(_: argparse.Namespace) -> int:
    from golem_magic.engines.local import default_state_dir
    from golem_magic.progress.tables import table
    from golem_magic.settings import describe_settings

    rows, notes = describe_settings()
    known = {("state_dir", "-"): str(default_state_dir())}
    rows = [(name, known.get((name, value), value), place) for name, value, place in rows]
    sys.stdout.write(table([("setting", "value", "from"), *rows]))
    for note in notes:
        sys.stderr.write(f"{note}\n")
    return 0


def _autoload(arguments: argparse.Namespace) -> int:
    from golem_magic import autoload

    acts = {"on": autoload.switch_on, "off": autoload.switch_off, "status": autoload.status}
    sys.stdout.write(_in_words(acts[arguments.switch]()))
    return 0


def _in_words(found: "Autoload") -> str:
    sentences = [
        f"on: kernels and IPython of this environment know the magics from their start ({found.path})"
        if found.is_on
        else f"off: %load_ext golem_magic brings the magics into a session ({found.path} does not name them)"
    ]
    sentences += [f"but {path} asks for them as well" for path in found.elsewhere if not found.is_on]
    return "".join(f"{sentence}\n" for sentence in sentences)


# --- the command line ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="golem-magic", description="Jobs of notebooks on Golem, from a shell."
    )
    parser.add_argument("--version", action="version", version=f"golem-magic {golem_magic.__version__}")
    words = parser.add_subparsers(required=True, metavar="WORD")

    serve = words.add_parser("serve", help="run the embedded Golem here until Ctrl-C")
    serve.set_defaults(act=_serve)
    serve.add_argument("--state", metavar="DIR", help="folder of its address (default: where notebooks look)")
    serve.add_argument("--slots", metavar="N", type=_slots, help="tasks at once (default: usable CPUs)")
    serve.add_argument("--port", metavar="P", type=_port, default=0, help="default: any free one")
    serve.add_argument(
        "--open-reads", action="store_true", help="reading needs no password, as original clients expect"
    )
    serve.add_argument(
        "--linger",
        metavar="SECONDS",
        type=_seconds,
        default=FOREVER,
        help="leave after so long without clients and unfinished jobs (default: stay)",
    )

    _add_map(words.add_parser("map", help="map a function of a notebook or script over inputs of a file"))
    jobs = words.add_parser("jobs", help="list the jobs")
    jobs.set_defaults(act=_jobs)
    _add_job_words(words)
    clean = words.add_parser("clean", help="remove old jobs and what no job needs any more")
    clean.set_defaults(act=_clean)
    clean.add_argument("--dry-run", action="store_true", help="only tell what would go, and why")
    clean.add_argument(
        "--older", metavar="DAYS", type=_days, help="over for so long (default: 7 if read, 30 if not)"
    )
    clean.add_argument("--max-size", metavar="SIZE", type=_size, help="read jobs go above it (default: 20G)")
    clean.add_argument("--max-jobs", metavar="N", type=_number, help="read jobs go above it (default: any)")
    nodes = words.add_parser("nodes", help="list the engine's machines, their slots, how many are taken")
    nodes.set_defaults(act=_nodes)
    nodes.add_argument(
        "--last",
        metavar="HOURS",
        type=_hours,
        help="show instead how much the embedded Golem was used (it remembers about a day of work)",
    )
    config = words.add_parser("config", help="show the settings and where each comes from")
    config.set_defaults(act=_config)
    autoload = words.add_parser("autoload", help="the magics in every kernel and IPython of this environment")
    autoload.set_defaults(act=_autoload)
    autoload.add_argument("switch", choices=("on", "off", "status"))
    return parser


def _add_job_words(words: Any) -> None:
    for word, act, text in (
        ("attach", _attach, "wait for the end of a job; 0 if every task gave a value"),
        ("retry", _retry, "run again the tasks of a job that failed; wait and answer as attach does"),
        ("cancel", _cancel, "cancel a job; results that are there stay"),
    ):
        one = words.add_parser(word, help=text)
        one.set_defaults(act=act)
        one.add_argument(
            "job", metavar="JOB", help="its id, or so much of the beginning that only one is meant"
        )
        if word == "attach":
            one.add_argument("-o", "--out", metavar="FILE", help=f"write its results there: {RESULTS}")


def _add_map(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=_map)
    parser.epilog = (
        "Of the file only what the function needs is run. Exit codes: 0 every task gave a value; 1 a task "
        "failed, or the map did; 2 the command line is wrong; 130 interrupted, which only stops waiting."
    )
    parser.add_argument(
        "function", metavar="FILE::NAME", help="in a notebook (.ipynb), a script (.py) or a module (pkg.mod)"
    )
    parser.add_argument(
        "inputs",
        metavar="INPUTS",
        help="file: .jsonl a JSON value per line, .csv .tsv a dict of texts per row, .npy a row each, "
        ".pickle an iterable; else a text per line; - for JSON lines from standard input",
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help=f"{RESULTS}; default: JSON lines to standard output"
    )
    parser.add_argument("-c", "--common", metavar="NAME", help="name, in FILE, of data that every task gets")
    parser.add_argument("--setup", metavar="NAME", help="name, in FILE, of what each worker calls first")
    parser.add_argument("--star", action="store_true", help="unpack each input: f(*x)")
    parser.add_argument("--workers", metavar="N", type=_slots, help="default: as many as there are slots")
    parser.add_argument("--engine", metavar="NAME", help="which engine places them")
    parser.add_argument("--label", metavar="TEXT", help="shown with the job")
    parser.add_argument("--chunk-size", metavar="N", type=_slots, help="tasks per lease")
    parser.add_argument("--retries", metavar="N", type=_number, help="try a task that raised so often again")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="longest time of one task")
    parser.add_argument("--resources", metavar="TEXT", help="what each worker may have, such as memory=2G")


def _slots(text: str) -> int:
    return _whole(text, 1, 100_000)


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _whole(text: str, lowest: int, highest: int) -> int:
    if text.isdecimal() and lowest <= int(text) <= highest:
        return int(text)
    message = f"{text} is no whole number from {lowest} to {highest}"
    raise argparse.ArgumentTypeError(message)


def _number(text: str) -> int:
    return _whole(text, 0, 10**9)


def _size(text: str) -> int:
    from golem_magic.units import n_bytes

    try:
        return n_bytes(text)
    except ValueError:
        message = f"{text} is no size such as 500M or 20G"
        raise argparse.ArgumentTypeError(message) from None


def _days(text: str) -> float:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    message = f"{text} is no number of days from 0 up"
    raise argparse.ArgumentTypeError(message)


def _hours(text: str) -> float:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and 0 < float(text) <= MAX_HOURS:
        return float(text)
    message = f"{text} is no number of hours above 0, up to {MAX_HOURS}"
    raise argparse.ArgumentTypeError(message)


def _seconds(text: str) -> str:
    try:
        if float(text) >= 0:
            return text
    except ValueError:
        pass
    message = f"{text} is no number of seconds"
    raise argparse.ArgumentTypeError(message)
