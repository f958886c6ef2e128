"""The double answers every recorded request as the real master did, byte for byte."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from engines.engine_contract import wait_until
from fakes.golem_double import GolemDouble
from fakes.golem_double_cluster import Job
from fakes.transcripts import RANDOM_ID, RECORDINGS, Exchange, comparable, read_recording, send

# Stands for the recorded sleeps, and is as long as they are: a task that ends when told to.
WAIT = ["/bin/sh", "./wait"]
WAIT_SCRIPT = "until test -e released-$1-$3; do sleep 0.01; done\n"


class Replay:
    """Sends the recorded requests in their order and brings the double into the situation of each."""

    def __init__(self, folder: Path) -> None:
        environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        self.folder = folder
        self.double = GolemDouble(folder, slots=(), environment=environment)
        self.ids: dict[bytes, bytes] = {}  # drawn by the recorded master, drawn by the double
        self.exchanges: dict[str, Exchange] = {}
        self.preparations: dict[str, list[Callable[[], object]]] = {
            "005": [self.add_node, self.complete],
            "010": [self.complete],
            "015": [self.complete],
            "034": [lambda: self.busy(2)],
            "037": [lambda: self.release("1e-3", 0, 1), lambda: self.counted("1e-3", 2)],
            "038": [lambda: self.release("1e-3", 2), self.complete],
            "039": [self.submit_mixed, self.complete],
            "040": [lambda: self.submit("all-false", [(2, ["/bin/false"])]), self.complete],
            "043": [lambda: self.submit("2e-3", [(6, WAIT)]), lambda: self.busy(2)],
            "045": [lambda: self.release("2e-3", 0, 1), lambda: self.counted("2e-3", 2)],
            "046": [lambda: self.submit("3e-3", [(2, WAIT)]), lambda: self.busy(2)],
            "048": [lambda: self.release("3e-3", 0, 1), lambda: self.counted("3e-3", 2)],
            "049": [lambda: self.submit("4e-3", [(2, WAIT)]), lambda: self.busy(2)],
            "051": [lambda: self.release("4e-3", 0, 1), lambda: self.counted("4e-3", 2)],
            "075": [self.restore_order],
            "079": [self.restart],
        }

    def run(self) -> dict[str, Exchange]:
        try:
            for path in RECORDINGS:
                for prepare in self.preparations.get(path.name[:3], []):
                    prepare()
                self.exchanges[path.name] = self.replay(path)
        finally:
            self.double.close()
        return self.exchanges

    def replay(self, path: Path) -> Exchange:
        request, expected = read_recording(path)
        request = request.replace(b'"/bin/sleep","1.5"', b'"/bin/sh","./wait"')
        for recorded, ours in self.ids.items():
            request = request.replace(recorded, ours)
        answer = send(self.double.url, request)
        if expected is not None and answer is not None:
            self.ids.update(zip(RANDOM_ID.findall(expected), RANDOM_ID.findall(answer), strict=False))
        return expected, answer

    # --- situations ---

    def job(self, job_id: str) -> Job:
        return self.double.cluster.jobs[job_id]

    def complete(self) -> None:
        """Every job with tasks has ended."""
        jobs = self.double.cluster.jobs.values()
        wait_until(lambda: all(job.finished + job.errored == job.total for job in jobs), "all jobs complete")

    def busy(self, slots: int) -> None:
        (node,) = self.double.cluster.nodes.values()
        wait_until(lambda: node.running == slots, f"{slots} slots busy")

    def counted(self, job_id: str, tasks: int) -> None:
        wait_until(lambda: self.job(job_id).finished == tasks, f"{tasks} tasks of {job_id} finished")

    def submit(self, job_id: str, lines: list[tuple[int, list[str]]]) -> None:
        content = json.dumps([{"Count": count, "Args": args} for count, args in lines])
        headers = {"x-golem-apikey": "test", "x-golem-job-preassigned-id": job_id}
        files = {"jsonfile": ("data.json", content)}
        requests.post(f"{self.double.url}/jobs/", headers=headers, files=files, timeout=10).raise_for_status()

    def submit_mixed(self) -> None:
        lines = [(2, ["/bin/echo", "fine"]), (1, ["/bin/false"]), (1, ["/bin/sleep", "soon"])]
        self.submit("mixed-1", lines)

    def add_node(self) -> None:
        node = self.double.cluster.add_node(2)
        (node.folder / "wait").write_text(WAIT_SCRIPT)

    def release(self, job_id: str, *tasks: int) -> None:
        (node,) = self.double.cluster.nodes.values()
        for task in tasks:
            (node.folder / f"released-{job_id}-{task}").touch()

    def restore_order(self) -> None:
        """Bring the lines into the recorded order, so that a range cuts the same one."""
        path = self.double.cluster.output / "two-lines.out.txt"
        path.write_text("".join(sorted(path.read_text().splitlines(keepends=True))))

    def restart(self) -> None:
        self.double.close()
        self.double = GolemDouble(self.folder, slots=(), content=False)


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exchange]:
    return Replay(tmp_path_factory.mktemp("golem")).run()


def test_there_are_recordings() -> None:
    assert len(RECORDINGS) == 81


@pytest.mark.meets("GM-01", "GM-02", "GM-03", "GM-04", "GM-05", "GM-07", "GM-09")
@pytest.mark.parametrize("name", [path.name for path in RECORDINGS])
def test_the_answer_is_the_recorded_one(name: str, exchanges: dict[str, Exchange]) -> None:
    if name.startswith(("070", "071")) and sys.platform != "linux":
        pytest.skip("the text is that of GNU sleep and of /bin/false")
    expected, answer = exchanges[name]

    assert comparable(answer) == comparable(expected)


def test_the_comparison_sees_a_changed_byte() -> None:
    _, response = read_recording(RECORDINGS[2])
    assert response is not None

    assert comparable(response.replace(b"SCHEDULED", b"SCHEDULEd")) != comparable(response)
    assert comparable(response.replace(b"Content-Type", b"Content-type")) != comparable(response)


def test_both_orders_of_a_list_come_up(tmp_path: Path) -> None:
    with GolemDouble(tmp_path, slots=(1, 2)) as double:
        seen = {requests.get(f"{double.url}/nodes/", timeout=10).content for _ in range(40)}

    assert len(seen) == 2
