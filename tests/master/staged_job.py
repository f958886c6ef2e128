"""A job on a share, as a client stages it, with one function for all tests: it writes and sleeps."""

import os
import socket
import sys
import uuid
from pathlib import Path

from golem_magic import payload
from golem_magic.model import JobId
from golem_magic.share import jobs, runtime, store
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.layout import JobPaths

# By value, since workers cannot import test modules; an input is (seconds, Python to run first).
FUNCTION = "lambda task: (exec(task[1], {'task': task}), __import__('time').sleep(task[0]))"


def stage(root: Path, inputs: list[tuple[float, str]]) -> tuple[JobPaths, list[str]]:
    """Stage a job and give its folder and the command line of its workers."""
    share = jobs.make_share(str(root))
    paths = share.job(JobId(uuid.uuid4().hex))
    function = eval(FUNCTION, {"__name__": "__main__"})
    manifest = jobs.Manifest(
        job_id=JobId(Path(paths.root).name),
        function_name="sleeper",
        label="",
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        function=store.put(share, payload.dump_function(function, "sleeper")),
        common=None,
        star=False,
        workers=4,
        chunk_size=1,
        beat_s=1.0,
        lease_s=10.0,
        max_attempts=3,
        created_s=0.0,
        on_error="raise",
        host=socket.gethostname(),
        engine="local",
        folder="/",
        uid=os.getuid(),
    )
    digest = jobs.make_job(paths, manifest)
    writer = InputWriter(paths)
    writer.append(payload.dump(inputs), len(inputs))
    writer.close()
    return paths, [sys.executable, runtime.stage(share), paths.root, digest, "0"]
