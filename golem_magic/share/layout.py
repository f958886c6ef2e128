"""Every path and name on the share; pure. Nobody else joins paths.

::

    <share>/objects/<digest>                      function, common data
    <share>/runtimes/<digest>.zip                 the worker's runtime
    <share>/trash/                                what is being deleted
    <share>/jobs/<job id>/
        manifest.json                             what the job is
        inputs.<k>.log  inputs.idx                blocks of pickled inputs; which tasks lie where
        rounds/<r>/head                           link: start length slots end
        rounds/<r>/<a>-<b>.<g>                    link: worker+runner; the lease on tasks [a,b), generation g
        rounds/<r>/<a>-<b>.<g>+<k>                link: entry k of that lease's log
        data/<x>-<y>.<failed>.<size>.<crc>.<by>   outcomes of tasks [x,y)
        offers/<r>_<a>-<b>.<g>                    hint: this lease can be had
        workers/<worker>.beat  .log
        control/closed (link: n)  source-error  cancel  failed (link: a worker's file)  client-<k> (link: who)
        clients/<k>.beat  <host>-<pid>-<random>.held
        placements/<native id>                    link: how many workers
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from golem_magic.errors import FormatError
from golem_magic.model import Digest, JobId, WorkerId

DATA_LINK = "../../data/"  # what a done entry points through, so that a person can follow it


@dataclass(frozen=True, slots=True)
class JobPaths:
    """All paths of one job."""

    root: str
    manifest: str = field(init=False)
    inputs_index: str = field(init=False)
    rounds: str = field(init=False)
    data: str = field(init=False)
    offers: str = field(init=False)
    workers: str = field(init=False)
    control: str = field(init=False)
    clients: str = field(init=False)
    placements: str = field(init=False)

    def __post_init__(self) -> None:
        for name, file in _FILES.items():
            object.__setattr__(self, name, f"{self.root}/{file}")

    @property
    def folders(self) -> tuple[str, ...]:
        """The fixed folders, made before a worker starts."""
        return (
            self.rounds,
            self.data,
            self.offers,
            self.workers,
            self.control,
            self.clients,
            self.placements,
        )

    def inputs_log(self, segment: int) -> str:
        """Blocks of pickled inputs; a new segment begins when one is large."""
        return f"{self.root}/inputs.{segment}.log"

    @property
    def closed(self) -> str:
        """Link to the number of inputs, made when all are staged."""
        return f"{self.control}/closed"

    @property
    def cancel(self) -> str:
        """Marker: workers stop, nobody heals."""
        return f"{self.control}/cancel"

    @property
    def source_error(self) -> str:
        """What ended the inputs early."""
        return f"{self.control}/source-error"

    @property
    def failed(self) -> str:
        """Link to why the job cannot be done at all, such as a set-up function that raises."""
        return f"{self.control}/failed"

    def failure(self, worker: WorkerId) -> str:
        """What :attr:`failed` points at: one pickled failure."""
        return f"{self.workers}/{worker}.failed"

    def beat(self, worker: WorkerId) -> str:
        """The worker's sign of life."""
        return f"{self.workers}/{worker}.beat"

    def log(self, worker: WorkerId) -> str:
        """What the worker and its tasks wrote to stdout and stderr."""
        return f"{self.workers}/{worker}.log"

    def client_beat(self, number: int) -> str:
        """The sign of life of a client."""
        return f"{self.clients}/{number}.beat"


_FILES = {
    "manifest": "manifest.json",
    "inputs_index": "inputs.idx",
    "rounds": "rounds",
    "data": "data",
    "offers": "offers",
    "workers": "workers",
    "control": "control",
    "clients": "clients",
    "placements": "placements",
}


@dataclass(frozen=True, slots=True)
class SharePaths:
    """The top of the share."""

    root: str

    @property
    def jobs(self) -> str:
        """All jobs."""
        return f"{self.root}/jobs"

    @property
    def objects(self) -> str:
        """Content-addressed functions and common data."""
        return f"{self.root}/objects"

    @property
    def runtimes(self) -> str:
        """Content-addressed worker runtimes."""
        return f"{self.root}/runtimes"

    @property
    def trash(self) -> str:
        """What is being deleted."""
        return f"{self.root}/trash"

    def job(self, job_id: JobId) -> JobPaths:
        """The paths of one job."""
        return JobPaths(f"{self.jobs}/{job_id}")

    def object(self, digest: Digest) -> str:
        """A function or common data."""
        return f"{self.objects}/{digest}"

    def runtime(self, digest: Digest) -> str:
        """A worker runtime."""
        return f"{self.runtimes}/{digest}.zip"


class Lease(NamedTuple):
    """The name of a lease: tasks ``[start, end)`` of a round, for the ``generation``-th time."""

    round: int
    start: int
    end: int
    generation: int

    def __str__(self) -> str:
        return f"{self.round}/{self.start}-{self.end}.{self.generation}"

    @property
    def offer(self) -> str:
        """The file name of an offer of this lease."""
        return f"{self.round}_{self.start}-{self.end}.{self.generation}"


class Done(NamedTuple):
    """Entry: tasks ``[start, end)`` have their outcomes in ``file``, ``failed`` of them errors."""

    start: int
    end: int
    failed: int
    size: int
    checksum: int
    writer: str
    file: str


class Cut(NamedTuple):
    """Entry: the lease ends at ``at``; what is behind is free."""

    at: int


class Lost(NamedTuple):
    """Entry: the lease is closed; what is not done is free, as the next generation."""

    by: str


Entry = Done | Cut | Lost


def signature(worker: WorkerId, runner: int) -> str:
    """What a lease's link says: no two runners sign alike, so an old claim is not taken for a new one."""
    return f"{worker}+{runner}"


def signer(target: str) -> WorkerId:
    """The worker that signed a lease."""
    return WorkerId(target.partition("+")[0])


def parse_lease(round_number: int, name: str) -> Lease:
    """Read ``<a>-<b>.<g>``, the name of a lease within its round."""
    span, _, generation = name.partition(".")
    start, _, end = span.partition("-")
    try:
        return Lease(round_number, int(start), int(end), int(generation))
    except ValueError as error:
        message = f"{name!r} in round {round_number} is no lease"
        raise FormatError(message) from error


def parse_offer(name: str) -> Lease:
    """Read ``<r>_<a>-<b>.<g>``."""
    round_number, _, rest = name.partition("_")
    try:
        return parse_lease(int(round_number), rest)
    except ValueError as error:
        message = f"{name!r} is no offer"
        raise FormatError(message) from error


def data_name(start: int, end: int, failed: int, size: int, checksum: int, writer: str) -> str:
    """The name of a file of outcomes: it says all that counting and checking need."""
    return f"{start}-{end}.{failed}.{size}.{checksum:08x}.{writer}"


def parse_entry(target: str) -> Entry:
    """Read what an entry's link points at."""
    try:
        file = target.removeprefix(DATA_LINK)
        if file != target and "/" not in file:  # it lies in this job's folder
            span, failed, size, checksum, writer = file.split(".", 4)
            start, _, end = span.partition("-")
            return Done(int(start), int(end), int(failed), int(size), int(checksum, 16), writer, file)
        kind, _, value = target.partition(":")
        if kind == "cut":
            return Cut(int(value))
        if kind == "lost":
            return Lost(value)
    except ValueError as error:
        message = f"{target!r} is no entry"
        raise FormatError(message) from error
    message = f"{target!r} is no entry"
    raise FormatError(message)
