"""Original clients can use the embedded Golem: it answers the recorded requests as the real one did.

Every difference is in the table below, with its reason; whatever is not there must be equal.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.transcripts import RANDOM_ID, RECORDINGS, Exchange, comparable, read_recording, send
from master.running_master import Master, running_master, wait_until

# Stands for the recorded sleeps, and is as long as they are: a task that ends when told to.
WAIT = ["/bin/sh", "./wait"]
WAIT_SCRIPT = "until test -e released-$1-$3; do sleep 0.01; done\n"
OURS = re.compile(rb'"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} \+0000 UTC"')
HOST = re.compile(rb'(?<="Hostname":")http://[^"]*|(?<=SUBMITTED to )http://[^ ]*')
LENGTH = re.compile(rb"Content-Length: \d+")

# What is not compared anywhere: the order of headers, which HTTP gives no meaning to; the fraction of
# a second in time stamps and what the original's runtime adds to it; the host's name; and a field:
EXTRA_FIELD = re.compile(rb',"Running":\d+}')  # of a job: how many tasks run, since Golem never tells

WORDS = "the same status, but the reason in our own words: theirs are those of a Go library"
REFUSED = "answered 400 where the original closed the connection, which looks like a failing network"
TRUTH = "a truthful status: errors are told, and a stop stays a stop"
EMPTY = "an empty job completes at once; the original's never does"
IDS = "ids are file names here, so unsafe ones are refused; the original wrote outside its folder"
NO_PAGES = "there are no web pages to be sent to"
NODES = "the one node is this machine, and always there"
KILLS = "a kill ends the tasks, which are errors then; the original's ends nothing"
OUTPUT = "output is always served"
JOURNAL = "a master that is started again knows its jobs"
REDIRECT = "the same redirect; its body, which nobody reads, is plain"

# number of the recording: (reason, our status, what our body says)
DIFFERENCES: dict[str, tuple[str, int, str]] = {
    "002": (NODES, 200, '"NumberOfItems":1'),
    "014": (REDIRECT, 301, "Moved Permanently"),
    "016": (REDIRECT, 301, "Moved Permanently"),
    "021": (WORDS, 400, "jsonfile is not JSON"),
    "023": (WORDS, 400, "jsonfile is not JSON"),
    "024": (WORDS, 400, "jsonfile must hold a list of lines, not dict"),
    "025": (WORDS, 400, "line 0: Count must be a whole number >= 0"),
    "026": (WORDS, 400, "line 0: Args must be a list of strings"),
    "027": (REFUSED, 400, "no file part named jsonfile"),
    "028": (REFUSED, 400, "no file part named jsonfile"),
    "030": (EMPTY, 200, '"State":"COMPLETE","Status":"SUCCESS"'),
    "031": (IDS, 400, "a job id is 1 to 64 letters, digits, '-' or '_'"),
    "032": (IDS, 404, "job ../escape not found"),
    "036": (WORDS, 409, "job 1e-3 is not complete"),
    "039": (
        TRUTH,
        200,
        '"Progress":{"Total":4,"Finished":2,"Errored":2},"State":"COMPLETE","Status":"ERROR"',
    ),
    "040": (
        TRUTH,
        200,
        '"Progress":{"Total":2,"Finished":0,"Errored":2},"State":"COMPLETE","Status":"ERROR"',
    ),
    "048": (
        TRUTH,
        200,
        '"Progress":{"Total":2,"Finished":2,"Errored":0},"State":"COMPLETE","Status":"STOPPED"',
    ),
    "050": (
        KILLS,
        200,
        '"Progress":{"Total":2,"Finished":0,"Errored":2},"State":"COMPLETE","Status":"STOPPED"',
    ),
    "051": (
        KILLS,
        200,
        '"Progress":{"Total":2,"Finished":0,"Errored":2},"State":"COMPLETE","Status":"STOPPED"',
    ),
    "061": (WORDS, 400, "not a number: many"),
    "063": (REFUSED, 400, "POST /nodes/id/resize/number"),
    "064": (REFUSED, 400, "POST /nodes/id/resize/number"),
    "072": (EMPTY, 200, "COMPLETED"),
    "077": (NO_PAGES, 404, "404 page not found"),
    "078": (NO_PAGES, 404, "404 page not found"),
    "079": (OUTPUT, 200, "first two-lines 0 0"),
    "081": (
        JOURNAL,
        200,
        '"Progress":{"Total":3,"Finished":3,"Errored":0},"State":"COMPLETE","Status":"SUCCESS"',
    ),
}


class Replay:
    """Sends the recorded requests in their order and brings the master into the situation of each."""

    def __init__(self, state: Path, masters: contextlib.ExitStack) -> None:
        self.state, self.masters = state, masters
        self.master = self.start(slots=0)
        (state / "work" / "wait").write_text(WAIT_SCRIPT)
        self.ids: dict[bytes, bytes] = {}  # drawn by the recorded master, drawn by ours
        self.preparations: dict[str, list[Callable[[], object]]] = {
            "005": [lambda: self.resize(2), self.complete],
            "010": [self.complete],
            "015": [self.complete],
            "034": [lambda: self.busy(2)],
            "037": [lambda: self.release("1e-3", 0, 1), lambda: self.counted("1e-3", 2)],
            "038": [lambda: self.release("1e-3", 2), self.complete],
            "039": [self.submit_mixed, self.complete],
            "040": [lambda: self.submit("all-false", (2, ["/bin/false"])), self.complete],
            "043": [lambda: self.submit("2e-3", (6, WAIT)), lambda: self.busy(2)],
            "045": [lambda: self.release("2e-3", 0, 1), lambda: self.counted("2e-3", 2)],
            "046": [lambda: self.submit("3e-3", (2, WAIT)), lambda: self.busy(2)],
            "048": [lambda: self.release("3e-3", 0, 1), lambda: self.counted("3e-3", 2)],
            "049": [lambda: self.submit("4e-3", (2, WAIT)), lambda: self.busy(2)],
            "050": [lambda: self.counted("4e-3", 2)],
            "059": [lambda: self.busy(0)],
            "075": [self.restore_order],
            "079": [self.restart],
        }

    def run(self) -> Iterator[tuple[str, Exchange]]:
        for path in RECORDINGS:
            for prepare in self.preparations.get(path.name[:3], []):
                prepare()
            yield path.name, self.replay(path)

    def replay(self, path: Path) -> Exchange:
        request, expected = read_recording(path)
        password = str(self.master.password).encode()
        request = request.replace(b"x-golem-apikey: test\r", b"x-golem-apikey: " + password + b"\r")
        request = request.replace(b'"/bin/sleep","1.5"', b'"/bin/sh","./wait"')
        for recorded, ours in self.ids.items():
            request = request.replace(recorded, ours)
        answer = send(f"http://{self.master.host}", request)
        if expected is not None and answer is not None:
            for recorded, ours in zip(RANDOM_ID.findall(expected), RANDOM_ID.findall(answer), strict=False):
                self.ids.setdefault(recorded, ours)
        return expected, answer

    # --- situations ---

    def start(self, slots: int) -> Master:
        return self.masters.enter_context(running_master(self.state, "--open-reads", slots=slots))

    def restart(self) -> None:
        self.master.process.kill()
        self.master.process.wait()
        self.master = self.start(slots=2)

    def resize(self, n_slots: int) -> None:
        assert self.master.ask("POST", f"{self.master.node()['Uri']}/resize/{n_slots}").status == 200

    def complete(self) -> None:
        """Every job has ended."""
        jobs = self.master.ask("GET", "/jobs/").json["Items"]
        for job in jobs:
            self.master.wait_for_end(job["JobId"])

    def busy(self, slots: int) -> None:
        wait_until(lambda: self.master.node()["RunningJobs"] == slots, f"{slots} slots busy")

    def counted(self, job_id: str, tasks: int) -> None:
        def n_ended() -> int:
            progress = self.master.job(job_id)["Progress"]
            return int(progress["Finished"] + progress["Errored"])

        wait_until(lambda: n_ended() == tasks, f"{tasks} tasks of {job_id} ended")

    def submit(self, job_id: str, *lines: tuple[int, list[str]]) -> None:
        self.master.submit(*lines, preassigned_id=job_id)

    def submit_mixed(self) -> None:
        self.submit("mixed-1", (2, ["/bin/echo", "fine"]), (1, ["/bin/false"]), (1, ["/bin/sleep", "soon"]))

    def release(self, job_id: str, *tasks: int) -> None:
        for task in tasks:
            (self.state / "work" / f"released-{job_id}-{task}").touch()

    def restore_order(self) -> None:
        """Bring the lines into the recorded order, so that a range cuts the same one."""
        path = self.state / "output" / "two-lines.out.txt"
        path.write_text("".join(sorted(path.read_text().splitlines(keepends=True))))


def equalized(response: bytes | None) -> tuple[bytes, list[bytes], bytes] | None:
    """First line, sorted headers and body, without what is not compared anywhere."""
    if response is None:
        return None
    response = EXTRA_FIELD.sub(b"}", OURS.sub(b'"2000-01-01 00:00:00.1 +0000 UTC m=+0.000000001"', response))
    if HOST.search(response):
        response = LENGTH.sub(b"Content-Length: <length>", HOST.sub(b"http://<host>", response))
    head, _, body = (comparable(response) or b"").partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    return first, sorted(headers), body


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exchange]:
    state = tmp_path_factory.mktemp("golem")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as masters:
        patch.setenv("LC_ALL", "C")
        patch.setenv("PATH", "/usr/bin:/bin")
        return dict(Replay(state, masters).run())


@pytest.mark.meets("GM-01", "GM-02", "GM-03", "GM-05", "GM-12", "GM-16")
@pytest.mark.parametrize("name", [path.name for path in RECORDINGS])
def test_the_answer_is_the_recorded_one_or_better(name: str, exchanges: dict[str, Exchange]) -> None:
    expected, answer = exchanges[name]
    if name[:3] not in DIFFERENCES:
        assert equalized(answer) == equalized(expected)
        return
    _, status, text = DIFFERENCES[name[:3]]
    assert equalized(answer) != equalized(expected), "no difference: take it out of the table"
    assert answer is not None
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert text in answer.decode()


def test_every_difference_has_a_recording() -> None:
    assert set(DIFFERENCES) <= {path.name[:3] for path in RECORDINGS}
