"""The engine that gives a Golem master's answers their meaning.

Three rules shape this file. Every request may be repeated: submissions carry their id, the
rest changes nothing the second time. Counters are believed, the status is not: Golem says
``SUCCESS`` whatever happened, and ``COMPLETE`` while tasks of a stopped job still run. And the
list of nodes is only a hint, since a wedged master never sends it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from golem_magic.clock import Clock, SystemClock
from golem_magic.engines.base import EngineOptions
from golem_magic.engines.golem_http import Answer, GolemConnection, NoAnswerError
from golem_magic.engines.golem_submission import SAFE_ID, check, form, headers
from golem_magic.engines.tls import Security
from golem_magic.errors import EngineError, SettingsError
from golem_magic.model import NativeId, Node, PlacementState, PlacementStatus, WorkerSpec

# Measured on the last published Golem: of 300 stops at the very start of a job 14 were ignored
# and one was refused, so five in a row are as good as never.
STOP_TRIES = 5
STOP_PAUSE_S = 0.05
NODES_TIMEOUT_S = 3.0
# Chosen by feel: longer than a worker takes to notice that its job was cancelled.
SETTLE_S = 60.0
# Chosen by feel: longer than any delay of a master that is well between a free slot and its next task.
LOST_S = 10.0
# To stop a job that never was is the one request that needs the password and changes nothing.
NO_JOB = NativeId("is-the-password-right")


@dataclass(frozen=True, slots=True)
class _Job:
    """The part of the master's answer about a job that means something."""

    state: str
    status: str
    total: int
    finished: int
    errored: int

    @property
    def n_ended(self) -> int:
        return self.finished + self.errored

    @property
    def is_stopped_short(self) -> bool:
        """Whether no further task will be handed out although some never ended."""
        return self.state == "COMPLETE" and self.n_ended < self.total

    def as_placement(self, state: PlacementState, n_lost: int = 0) -> PlacementStatus:
        lost = f", {n_lost} on no node: its workers were lost, or need to be restarted with their master"
        words = f"{self.state}/{self.status}{lost if n_lost else ''}"
        return PlacementStatus(
            state=state,
            n_workers=self.total,
            n_ended=self.n_ended + n_lost,
            n_errored=self.errored + n_lost,
            reason=words if state is not PlacementState.PENDING else "",
        )


class GolemEngine:
    """Places workers as the tasks of a Golem job: one line whose ``Count`` is their number.

    Golem appends three words to the command: job id, line number and task number.

    What :meth:`poll` makes of a job:

    ==========================  ==========================================================
    unknown to the master       UNKNOWN (it may have restarted)
    every task ended            ENDED, whatever the status says
    stopped before that         RUNNING while a node is busy and the counters moved within
                                ``SETTLE_S``, else ENDED
    ``NEW`` or ``SCHEDULED``    PENDING
    otherwise                   RUNNING, which does not prove that any task runs; those that no
                                node can be running for ``LOST_S`` count as ended badly
    ==========================  ==========================================================

    The third row is a guess, since Golem does not tell how many tasks of a job are running.
    The nodes' occupation is an upper bound, but counts other jobs, and a node that lost its
    worker may look busy for ever: hence the time limit. By the same bound tasks are known to be
    lost that went to a worker which is gone: while a node has a free slot no task waits, so more
    unfinished tasks than there are busy slots cannot all be running.

    Args:
        server_url: Base URL of the master; without a scheme it means https.
        server_password: Sent in a header with every request, shown nowhere.
        security: Whom to trust; None for the system's authorities.
        share_is_local: Whether its workers all run on this machine.
        request_timeout_s: Longest wait for a connection, and for an answer.
        clock: Time, for tests to take hold of.

    Raises:
        SettingsError: The URL, the password or the security cannot be used.
    """

    def __init__(
        self,
        server_url: str,
        server_password: str | None,
        *,
        security: Security | None = None,
        share_is_local: bool = False,
        request_timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._golem = GolemConnection(
            server_url, server_password, security=security, timeout_s=request_timeout_s
        )
        self._share_is_local = share_is_local
        self._nodes_timeout_s = min(NODES_TIMEOUT_S, request_timeout_s)
        self._clock = clock or SystemClock()
        self._last_moves: dict[NativeId, tuple[int, float]] = {}
        self._is_welcome = False

    @classmethod
    def from_options(cls, options: EngineOptions) -> Self:
        """Build the engine from the settings.

        Raises:
            SettingsError: There is no usable ``server_url``, or another setting cannot be used.
        """
        if not options.server_url:
            message = "the engine golem needs a master to talk to: set server_url to its URL"
            raise SettingsError(message)
        security = Security(
            ca=options.server_ca,
            fingerprint=options.server_fingerprint,
            verify=options.server_verify,
            legacy=options.server_legacy_tls,
            plain=options.server_plain,
            env_proxies=options.server_env_proxies,
        )
        return cls(options.server_url, options.server_password, security=security)

    def __repr__(self) -> str:
        return f"GolemEngine({self._golem.url!r})"

    @property
    def share_is_local(self) -> bool:
        """Whether all workers run on this machine."""
        return self._share_is_local

    def submit(self, spec: WorkerSpec) -> NativeId:
        """Ask for ``spec.count`` workers; see :meth:`Engine.submit`.

        After a transient fault the request may have arrived all the same. Asking again with the
        same id settles it: the master refuses the second one, and the job it has is ours.
        """
        check(spec)
        answer = self._golem.send(
            "POST",
            "/jobs/",
            accept=(200, 409),
            headers=headers(spec),
            files=form(spec),
        )
        if answer.status == 409:
            self._require_same(spec)
        elif _record(answer).get("JobId") != spec.native_id:
            message = "the answer to a submission does not name the job"
            raise answer.unexpected(message)
        return spec.native_id

    def poll(self, ids: Collection[NativeId]) -> Mapping[NativeId, PlacementStatus]:
        """Report on all ``ids``, with one request each; see :meth:`Engine.poll`."""
        jobs = {native_id: self._job(native_id) for native_id in ids}
        is_in_doubt = any(job and self._is_in_doubt(native_id, job) for native_id, job in jobs.items())
        nodes = self._nodes() if is_in_doubt else None
        return {native_id: self._placement(native_id, job, nodes) for native_id, job in jobs.items()}

    def cancel(self, ids: Collection[NativeId]) -> None:
        """Hand out no more tasks of ``ids``. Those running go on: Golem's own kill ends nobody."""
        for native_id in ids:
            self._stop(native_id)

    def kill(self, native_id: NativeId) -> None:
        """End the running tasks too, on a master that can: the embedded one.

        A stranger is harmless. A wedged master of the old kind never answers this: use
        :meth:`cancel` there.
        """
        if SAFE_ID.fullmatch(native_id):
            self._golem.send("POST", f"/jobs/{native_id}/kill", accept=(200, 404))

    def n_slots(self) -> int | None:
        """Sum of ``MaxJobs`` over the nodes; None if their list does not come in time.

        Reading needs no password, so a wrong one would show only at the submission, when all is
        staged. Hence the first question is followed by a second one, which needs it.
        """
        nodes = self._nodes()
        if nodes is None or not self._is_welcome:
            self._knock()
        return None if nodes is None else sum(max(0, _count(node, "MaxJobs")) for node in nodes)

    def nodes(self) -> list[Node]:
        """The nodes as the master sees them; one that was lost may be among them."""
        nodes = self._nodes()
        if nodes is None:
            message = f"{self._golem.url} did not send its list of nodes in time: it may be wedged, try again"
            raise EngineError(message, transient=True)
        return [Node(_host(node), _count(node, "MaxJobs"), _count(node, "RunningJobs")) for node in nodes]

    def n_started(self, native_id: NativeId) -> int | None:
        """How many tasks of a job were handed to nodes; None if neither nodes nor log can tell.

        While a node has a free slot nothing waits. Otherwise the master's log tells, if it is served.
        """
        job = self._job(native_id)
        if job is None:
            return None
        if _is_any_free(self._nodes() or []):
            return job.total
        log = self.output(native_id, "log")
        begun = {
            tuple(line.split()[3:5]) for line in (log or "").splitlines() if line.startswith("SUBMITTED ")
        }
        return None if log is None else sum(words[:1] == (native_id,) for words in begun)

    def output(self, native_id: NativeId, kind: Literal["out", "err", "log"]) -> str | None:
        """What the tasks of a job printed, or the master's log of them; None where there is none.

        A master serves these files only if it was set up so, makes each at its first line, and
        the oldest make no log. Lines of several tasks are mixed, and lines of one may change
        places; the last ones come a second or two after the end.

        Raises:
            EngineError: The master was not reached, or is in trouble.
        """
        if not SAFE_ID.fullmatch(native_id):
            return None
        answer = self._golem.send("GET", f"/output/{native_id}.{kind}.txt", accept=(200, 301, 302, 307, 404))
        return answer.text if answer.status == 200 and answer.kind.startswith("text/plain") else None

    def request(self, method: str, path: str) -> object:
        """Send a bare request, such as ``POST /clients/4711`` to the embedded master.

        Returns:
            The decoded JSON, or None for an empty body.

        Raises:
            EngineError: The master was not reached, or answered with anything but 200.
        """
        answer = self._golem.send(method, path)
        decoded: object = answer.decoded() if answer.text.strip() else None
        return decoded

    def close(self) -> None:
        """Close the connection."""
        self._golem.close()

    def _knock(self) -> None:
        """Find out whether the master answers, and accepts the password.

        Raises:
            EngineError: It does not.
        """
        # 400 is what a scribe, the database before a master, says of a job that it does not know.
        answer = self._golem.send("POST", f"/jobs/{NO_JOB}/stop", accept=(400, 404))
        if answer.status == 404 and not answer.text.startswith("job "):
            message = "404, not in the words of a master"
            raise answer.unexpected(message)
        self._is_welcome = True

    def _require_same(self, spec: WorkerSpec) -> None:
        """After 409: the job must be the one asked for, else the id belongs to somebody else."""
        job = self._job(spec.native_id)
        if job is None:
            message = f"{self._golem.url} refused job {spec.native_id} as known, then forgot it: try again"
            raise EngineError(message, transient=True)
        if job.total != spec.count:
            message = (
                f"{self._golem.url} has another job {spec.native_id}, with {job.total} tasks and not"
                f" {spec.count}: submit under a new id"
            )
            raise EngineError(message)

    def _job(self, native_id: NativeId) -> _Job | None:
        if not SAFE_ID.fullmatch(native_id):
            return None  # none of ours, and must not become part of a URL
        answer = self._golem.send("GET", f"/jobs/{native_id}", accept=(200, 404))
        if answer.status == 200:
            return _parsed_job(answer)
        if not answer.text.startswith("job "):
            message = "404, not in the words of a master"
            raise answer.unexpected(message)
        return None

    def _placement(
        self, native_id: NativeId, job: _Job | None, nodes: list[dict[str, Any]] | None
    ) -> PlacementStatus:
        """Make sense of a job; ``nodes`` are those of now, None if they are not known or not needed."""
        if job is None:
            return PlacementStatus(state=PlacementState.UNKNOWN, reason="not known to the master")
        if job.n_ended >= job.total:
            return job.as_placement(PlacementState.ENDED)
        if job.is_stopped_short:
            is_busy = nodes is None or _n_busy(nodes) > 0
            is_over = not is_busy or self._still_s(native_id, job) >= SETTLE_S
            return job.as_placement(PlacementState.ENDED if is_over else PlacementState.RUNNING)
        if job.state in ("NEW", "SCHEDULED"):
            return job.as_placement(PlacementState.PENDING)
        n_lost = _n_lost(job, nodes) if nodes and self._still_s(native_id, job) >= LOST_S else 0
        is_over = job.n_ended + n_lost >= job.total
        return job.as_placement(PlacementState.ENDED if is_over else PlacementState.RUNNING, n_lost)

    def _is_in_doubt(self, native_id: NativeId, job: _Job) -> bool:
        """Whether the nodes have to say how many of its tasks can be running."""
        if job.is_stopped_short:
            return True
        return (
            not self._share_is_local and job.n_ended < job.total and self._still_s(native_id, job) >= LOST_S
        )

    def _still_s(self, native_id: NativeId, job: _Job) -> float:
        """For how long the counters of a job have not moved while we looked, by our own clock."""
        n_ended, since_s = self._last_moves.get(native_id, (-1, 0.0))
        if n_ended != job.n_ended:
            since_s = self._clock.now()
            self._last_moves[native_id] = (job.n_ended, since_s)
        return self._clock.now() - since_s

    def _stop(self, native_id: NativeId) -> None:
        """Stop and look, several times: at the start of a job a stop can be lost, or refused by 417."""
        for attempt in range(STOP_TRIES):
            self._clock.sleep(STOP_PAUSE_S * attempt)
            job = self._job(native_id)
            if job is None or job.state == "COMPLETE" or job.n_ended >= job.total > 0:
                return
            self._golem.send("POST", f"/jobs/{native_id}/stop", accept=(200, 404, 417))
        job = self._job(native_id)
        if job is not None and job.state != "COMPLETE":
            message = f"{self._golem.url} did not stop job {native_id} at {STOP_TRIES} requests: try again"
            raise EngineError(message, transient=True)

    def _nodes(self) -> list[dict[str, Any]] | None:
        """The nodes as the master sees them; None if it does not answer in time."""
        try:
            answer = self._golem.send("GET", "/nodes/", timeout_s=self._nodes_timeout_s)
        except NoAnswerError:
            return None
        nodes = _record(answer).get("Items")
        if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
            message = "the list of nodes has another shape"
            raise answer.unexpected(message)
        return nodes


def _record(answer: Answer) -> dict[str, Any]:
    decoded = answer.decoded()
    if not isinstance(decoded, dict):
        message = "the answer is not a JSON object"
        raise answer.unexpected(message)
    return decoded


def _parsed_job(answer: Answer) -> _Job:
    record = _record(answer)
    try:
        progress = record["Progress"]
        total, finished, errored = (int(progress[key]) for key in ("Total", "Finished", "Errored"))
        job = _Job(str(record["State"]), str(record["Status"]), total, finished, errored)
    except (KeyError, TypeError, ValueError, OverflowError):
        job = None
    if job is None or min(job.total, job.finished, job.errored) < 0:
        message = "the job's record has another shape"
        raise answer.unexpected(message)
    return job


def _n_busy(nodes: list[dict[str, Any]]) -> int:
    return sum(max(0, _count(node, "RunningJobs")) for node in nodes)


def _n_lost(job: _Job, nodes: list[dict[str, Any]]) -> int:
    """How many unfinished tasks of a job neither wait nor run; see :class:`GolemEngine`."""
    return max(0, job.total - job.n_ended - _n_busy(nodes)) if _is_any_free(nodes) else 0


def _is_any_free(nodes: list[dict[str, Any]]) -> bool:
    return any(_count(node, "RunningJobs") < _count(node, "MaxJobs") for node in nodes)


def _count(node: Mapping[str, Any], key: str) -> int:
    value = node.get(key)
    return value if isinstance(value, int) else 0


def _host(node: Mapping[str, Any]) -> str:
    return str(node.get("Hostname", "?")).rpartition("://")[2]
