"""The embedded Golem speaks the Golem protocol, and better where that one was weak."""

import contextlib
import json
import os
import re
import socket
import time
from pathlib import Path

import pytest
from master.running_master import Master, multipart, running_master, wait_until

ECHO = '[{"Count":1,"Args":["/bin/echo","hello"]}]'
FIELDS = {
    "JobId",
    "Uri",
    "Owner",
    "Label",
    "Type",
    "FirstCreated",
    "LastModified",
    "Progress",
    "State",
    "Status",
}


@pytest.mark.meets("GM-02", "GM-03", "GM-04", "GM-06")
def test_a_submission_is_answered_with_the_job_and_its_defaults(master: Master) -> None:
    job = master.post_jobs(ECHO.encode()).json

    assert set(job) - {"Running"} == FIELDS
    assert re.fullmatch("[0-9a-f]{32}", job["JobId"])
    assert job["Uri"] == f"/jobs/{job['JobId']}"
    assert (job["Label"], job["Owner"], job["Type"]) == (job["JobId"], "Anonymous", "Unspecified")
    assert job["Progress"] == {"Total": 1, "Finished": 0, "Errored": 0}
    assert (job["State"], job["Status"], job["LastModified"]) == ("SCHEDULED", "READY", "")


@pytest.mark.meets("GM-04")
def test_the_headers_are_kept_as_utf8(master: Master) -> None:
    label = "Größe 漢".encode().decode("latin-1")

    job_id = master.submit((1, ["/bin/true"]), preassigned_id="my-job_1", label=label, owner="me", type="run")

    job = master.job(job_id)
    assert (job["JobId"], job["Label"], job["Owner"], job["Type"]) == ("my-job_1", "Größe 漢", "me", "run")


@pytest.mark.meets("GM-01")
def test_the_resources_have_the_shapes_of_golem(master: Master) -> None:
    job_ids = [master.submit((1, ["/bin/true"])) for _ in range(3)]

    jobs = master.ask("GET", "/jobs/").json
    nodes = master.ask("GET", "/nodes/").json

    assert [job["JobId"] for job in jobs["Items"]] == job_ids
    assert (jobs["NumberOfItems"], nodes["NumberOfItems"]) == (3, 1)
    node = nodes["Items"][0]
    assert set(node) == {"NodeId", "Uri", "Hostname", "MaxJobs", "RunningJobs", "Running"}
    assert master.ask("GET", node["Uri"]).json["MaxJobs"] == 2
    assert master.ask("GET", "/jobs/").headers["Content-Type"] == "application/json"


@pytest.mark.meets("GM-07", "GM-08", "GM-09")
def test_tasks_get_job_line_and_task_appended_and_the_log_tells(master: Master) -> None:
    job_id = master.submit(
        (2, ["/bin/echo", "a"]), (0, ["/bin/echo", "x"]), (1, ["/bin/echo", "b\nCOMPLETED"])
    )

    job = master.wait_for_end(job_id)

    assert (job["State"], job["Status"], job["Progress"]["Finished"]) == ("COMPLETE", "SUCCESS", 3)
    lines = master.output(job_id, "out")
    assert sorted(lines) == sorted([f"a {job_id} 0 0", f"a {job_id} 0 1", "b", f"COMPLETED {job_id} 2 2"])
    log = master.output(job_id, "log")
    assert sum(line.startswith("SUBMITTED to http://") for line in log) == 3
    assert f"FINISHED {job_id} 1 0 /bin/echo a" in log
    assert log.count("COMPLETED") == 1
    assert log[-1] == "COMPLETED"


@pytest.mark.meets("GM-08")
def test_a_job_with_failed_tasks_says_error(master: Master) -> None:
    job_id = master.submit((1, ["/bin/false"]), (1, ["/bin/true"]), (1, ["/bin/sh", "-c", "kill -9 $$"]))

    job = master.wait_for_end(job_id)

    assert job["Status"] == "ERROR"
    assert job["Progress"] == {"Total": 3, "Finished": 1, "Errored": 2}


@pytest.mark.meets("GM-15")
@pytest.mark.parametrize("program", ["no-such-program-anywhere", "/nonexistent/x", "/etc/hostname"])
def test_a_program_that_cannot_be_started_is_an_error_with_a_line(master: Master, program: str) -> None:
    job_id = master.submit((1, [program, "x"]))

    job = master.wait_for_end(job_id)

    assert job["Progress"]["Errored"] == 1
    (line,) = master.output(job_id, "err")
    assert line.startswith(f"Error finding {program}: ")


@pytest.mark.meets("GM-17")
@pytest.mark.parametrize("lines", ["[]", "null", '[{"Count":0,"Args":["x"]}]'])
def test_an_empty_job_completes_at_once(master: Master, lines: str) -> None:
    job_id = master.post_jobs(lines.encode()).json["JobId"]

    job = master.job(job_id)

    assert (job["State"], job["Status"]) == ("COMPLETE", "SUCCESS")


@pytest.mark.meets("GM-05")
@pytest.mark.parametrize(
    "content",
    [
        "",
        '[{"Count":1,',
        "{}",
        "7",
        "[3]",
        '[{"Count":"1","Args":["x"]}]',
        '[{"Count":-1,"Args":["x"]}]',
        '[{"Count":1.0,"Args":["x"]}]',
        '[{"Count":1,"Args":[1]}]',
        '[{"Count":1,"Args":[]}]',
        '[{"Count":1}]',
        '[{"Count":1,"Args":["a\\u0000b"]}]',
        "[" * 100_000,
    ],
)
def test_a_bad_list_of_lines_is_refused_and_the_master_lives(master: Master, content: str) -> None:
    assert master.post_jobs(content.encode()).status == 400
    assert master.ask("GET", "/jobs/").json["NumberOfItems"] == 0


@pytest.mark.meets("GM-05")
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", ECHO.encode()),
        ("", b""),
        ("multipart/form-data", multipart(ECHO.encode())),
        ("multipart/form-data; boundary=B", multipart(ECHO.encode())[:-8]),
        (
            "multipart/form-data; boundary=B",
            multipart(ECHO.encode(), 'Content-Disposition: form-data; name="x"'),
        ),
        (
            "multipart/form-data; boundary=B",
            multipart(ECHO.encode(), 'Content-Disposition: form-data; name="jsonfile"'),
        ),
        ("multipart/form-data; boundary=B", b"\x00\xff\r\n--B\r\n\r\n\r\n--B--"),
    ],
)
def test_a_bad_form_is_refused(master: Master, content_type: str, body: bytes) -> None:
    assert master.ask("POST", "/jobs/", body, {"Content-Type": content_type}).status == 400


@pytest.mark.meets("GM-05")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/jobs/nope", 404),
        ("GET", "/nodes/nope", 404),
        ("GET", "/output/nope.out.txt", 404),
        ("GET", "/output/..%2Fgolem.json", 404),
        ("GET", "/output/../golem.json", 404),
        ("GET", "/elsewhere", 404),
        ("POST", "/jobs/nope/stop", 404),
        ("POST", "/jobs/nope/kill", 404),
        ("POST", "/jobs/nope", 400),
        ("POST", "/jobs/nope/dance", 501),
        ("POST", "/nodes/nope", 400),
        ("POST", "/nodes/nope/resize", 400),
        ("POST", "/nodes/nope/resize/2", 404),
        ("POST", "/clients/xyz", 400),
        ("POST", "/clients/0", 400),
        ("POST", "/clients/-1", 400),
        ("PUT", "/jobs/", 501),
        ("DELETE", "/jobs/nope", 501),
        ("HEAD", "/jobs/", 501),
        ("GET", "/jobs", 301),
        ("POST", "/nodes", 301),
    ],
)
def test_requests_that_name_nothing_are_told_so(master: Master, method: str, path: str, status: int) -> None:
    assert master.ask(method, path).status == status


@pytest.mark.meets("GM-05")
def test_an_id_is_taken_once_and_must_be_safe(master: Master) -> None:
    first = master.post_jobs(ECHO.encode(), preassigned_id="one")
    again = master.post_jobs(ECHO.encode(), preassigned_id="one")

    assert (first.status, again.status) == (200, 409)
    assert again.text == "job already exists: one\n"
    assert [path.name for path in (master.state / "jobs").iterdir()] == ["one.jsonl"]
    for unsafe in ("../escape", "a/b", "a b", "x" * 65, "."):
        assert master.post_jobs(ECHO.encode(), preassigned_id=unsafe).status == 400


def test_garbage_on_the_socket_does_no_harm(master: Master) -> None:
    host, _, port = master.host.partition(":")
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /jobs/ HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"",
    ):
        with (
            socket.create_connection((host, int(port)), timeout=5) as connection,
            contextlib.suppress(OSError),
        ):
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    assert master.ask("GET", "/jobs/").status == 200


def test_a_bad_length_is_answered_with_400(master: Master) -> None:
    host, _, port = master.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        key = f"x-golem-apikey: {master.password}\r\n"
        connection.sendall(f"POST /jobs/ HTTP/1.1\r\n{key}Content-Length: many\r\n\r\n".encode())

        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


@pytest.mark.meets("GM-20")
def test_nothing_is_read_or_changed_without_the_password(master: Master) -> None:
    job_id = master.submit((1, ["/bin/echo", "secret"]))
    node_id = master.node()["NodeId"]
    for wrong in (None, "", "wrong", "wröng"):
        master.password = wrong
        for path in ("/jobs/", f"/jobs/{job_id}", "/nodes/", f"/output/{job_id}.out.txt", "/elsewhere"):
            assert master.ask("GET", path).status == 403
        for path in (
            f"/jobs/{job_id}/kill",
            f"/nodes/{node_id}/resize/9",
            f"/clients/{os.getpid()}",
            "/nodes/die",
            "/leave",
        ):
            answer = master.ask("POST", path)
            assert (answer.status, answer.text) == (403, "api key required in header\n")
        assert master.post_jobs(ECHO.encode()).status == 403
        assert master.post_jobs(b"x" * 3_000_000).status == 403


@pytest.mark.meets("GM-05")
def test_open_reads_need_no_password_but_changes_do(state_dir: Path) -> None:
    with running_master(state_dir, "--open-reads") as master:
        master.password = None

        assert master.ask("GET", "/jobs/").status == 200
        assert master.ask("GET", "/jobs/", headers={"Host": "evil.example"}).status == 403
        assert master.post_jobs(ECHO.encode()).status == 403


def test_only_loopback_is_listened_on(master: Master) -> None:
    port = int(master.host.partition(":")[2])
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    ]

    assert listening == [f"0100007F:{port:04X}"]


@pytest.mark.meets("GM-16")
def test_output_is_served_in_parts(master: Master) -> None:
    job_id = master.submit((1, ["/bin/sh", "-c", "printf 0123456789"]))
    master.wait_for_end(job_id)
    path = f"/output/{job_id}.out.txt"

    whole = master.ask("GET", path)
    assert (whole.text, whole.headers["Accept-Ranges"]) == ("0123456789\n", "bytes")
    for wanted, text, place in (("7-", "789\n", "7-10"), ("2-4", "234", "2-4"), ("-3", "89\n", "8-10")):
        part = master.ask("GET", path, headers={"Range": f"bytes={wanted}"})
        assert (part.status, part.text) == (206, text)
        assert part.headers["Content-Range"] == f"bytes {place}/11"
    behind = master.ask("GET", path, headers={"Range": "bytes=11-"})
    assert (behind.status, behind.headers["Content-Range"]) == (416, "bytes */11")
    empty = master.ask("GET", f"/output/{master.submit()}.err.txt", headers={"Range": "bytes=5-"})
    assert empty.status == 404
    (master.state / "output" / "empty.err.txt").touch()
    empty = master.ask("GET", "/output/empty.err.txt", headers={"Range": "bytes=5-"})
    assert (empty.status, empty.text) == (200, "")
    head = master.ask("HEAD", path)
    assert (head.status, head.text, head.headers["Content-Length"]) == (200, "", "11")


@pytest.mark.meets("GM-10")
def test_only_a_job_that_is_over_can_be_archived(master: Master) -> None:
    job_id = master.submit((1, ["/bin/sh", "-c", "exec sleep 60"]))

    assert master.ask("POST", f"/jobs/{job_id}/archive").status == 409
    master.ask("POST", f"/jobs/{job_id}/kill")
    master.wait_for_end(job_id)
    assert master.ask("POST", f"/jobs/{job_id}/archive").status == 200
    assert master.job(job_id)["State"] == "COMPLETE"


def test_chunked_bodies_are_read(master: Master) -> None:
    host, _, port = master.host.partition(":")
    body = multipart(ECHO.encode())
    head = (
        f"POST /jobs/ HTTP/1.1\r\nx-golem-apikey: {master.password}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for piece in (
            head.encode(),
            b"5\r\n%b\r\n" % body[:5],
            b"%x\r\n%b\r\n" % (len(body) - 5, body[5:]),
            b"0\r\n\r\n",
        ):
            connection.sendall(piece)

        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_a_large_job_is_taken_in_quickly(master: Master) -> None:
    master.ask("POST", f"/nodes/{master.node()['NodeId']}/resize/0")
    lines = json.dumps([{"Count": 1, "Args": ["/bin/echo", str(number)]} for number in range(20_000)])

    begun_s = time.monotonic()
    job_id = master.post_jobs(lines.encode()).json["JobId"]

    assert time.monotonic() - begun_s < 2
    assert master.job(job_id)["Progress"]["Total"] == 20_000


def test_from_request_to_the_first_instruction_of_a_task_it_takes_milliseconds(
    master: Master, tmp_path: Path
) -> None:
    delays_ms = []
    for number in range(10):
        mark = tmp_path / str(number)
        begun_s = time.time()
        master.submit((1, ["/bin/sh", "-c", f": > '{mark}'"]))
        wait_until(mark.exists, "the task")
        delays_ms.append((mark.stat().st_mtime - begun_s) * 1000)

    assert sorted(delays_ms)[5] < 50, delays_ms  # a few ms on a machine that does nothing else
