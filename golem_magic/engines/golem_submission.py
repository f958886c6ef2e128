"""What is submitted to a Golem master, and what must never be."""

import json
import re
from typing import Any

from golem_magic.engines.golem_http import header_bytes
from golem_magic.errors import EngineError
from golem_magic.model import WorkerSpec

# Golem uses ids as file names without looking at them, and in URLs.
SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Linux's MAX_ARG_STRLEN (131,072) less the closing NUL; a longer one fails without a word.
MAX_ARG_BYTES = 131_071


def check(spec: WorkerSpec) -> None:
    """Refuse what a master accepts to its own harm: such jobs never end, or take workers down.

    Raises:
        EngineError: Permanent; nothing was sent.
    """
    if not SAFE_ID.fullmatch(spec.native_id):
        message = f"job id {spec.native_id!r} must be 1 to 64 letters, digits, '-' or '_'"
        raise EngineError(message)
    if spec.count < 1:
        message = f"job {spec.native_id} asks for {spec.count} workers: ask for 1 or more"
        raise EngineError(message)
    if not spec.argv or not spec.argv[0]:
        message = f"job {spec.native_id} names no program to start"
        raise EngineError(message)
    for position, word in enumerate(spec.argv):
        fault = _fault_of(word)
        if fault:
            message = f"word {position} of the command of job {spec.native_id} {fault}: pass data by file"
            raise EngineError(message)


def _fault_of(word: str) -> str:
    if "\0" in word or "\n" in word or "\r" in word:
        return "holds a line break or NUL, which would garble the master's log"
    try:
        n_bytes = len(word.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode, so that JSON cannot carry it"
    return f"has {n_bytes} bytes, more than {MAX_ARG_BYTES}" if n_bytes > MAX_ARG_BYTES else ""


def headers(spec: WorkerSpec) -> dict[str, bytes]:
    """An empty value counts as absent for the master, which then uses its own default."""
    return {
        "x-golem-job-preassigned-id": header_bytes(spec.native_id),
        "x-golem-job-label": header_bytes(spec.label),
        "x-golem-job-owner": header_bytes(spec.owner),
        "x-golem-job-type": b"golemize",
    }


def form(spec: WorkerSpec) -> dict[str, Any]:
    """The form to post; the master wants a file name and looks at one of the two parts only."""
    lines = json.dumps([{"Count": spec.count, "Args": list(spec.argv)}])
    return {"command": (None, "run"), "jsonfile": ("data.json", lines, "application/json")}
