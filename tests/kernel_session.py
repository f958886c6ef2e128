"""A real kernel and one client connected to it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[1]
DEADLINE_S = 60  # far more than anything here takes, also on a busy machine


@dataclass
class Done:
    """What came of a cell."""

    status: str
    text: str = ""
    data: list[dict[str, str]] = field(default_factory=list)


class KernelSession:
    """A running kernel and one client connected to it."""

    def __init__(self, manager: Any, client: Any) -> None:
        self._manager, self._client = manager, client

    def run(self, cell: str, *, interrupt_when: str | None = None) -> Done:
        """Run a cell to its end and collect what it shows, without colours.

        Args:
            cell: What to run.
            interrupt_when: Press the stop button, once, when this text has been shown.
        """
        done = Done("")
        pressed: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream":
                done.text += content["text"]
            elif kind == "error":
                done.text += "\n".join(content["traceback"])
            elif kind in ("display_data", "execute_result", "update_display_data"):
                done.data.append(content["data"])
            if interrupt_when is not None and interrupt_when in done.text and not pressed:
                pressed.append(interrupt_when)
                os.killpg(self._manager.provisioner.pgid, signal.SIGINT)  # what interrupt_kernel does

        reply = self._client.execute_interactive(cell, output_hook=hear, timeout=DEADLINE_S)
        done.status = reply["content"]["status"]
        return done

    def value(self, expression: str) -> str:
        """Give the repr of an expression."""
        reply = self._client.execute_interactive(
            "", user_expressions={"value": expression}, output_hook=lambda _: None, timeout=DEADLINE_S
        )
        value = reply["content"]["user_expressions"]["value"]
        return str(value["data"]["text/plain"]) if value["status"] == "ok" else str(value)

    def complete(self, text: str) -> list[str]:
        """Give the completions of a text."""
        reply = self._client.complete(text, reply=True, timeout=DEADLINE_S)
        return list(reply["content"]["matches"])


@contextlib.contextmanager
def started_kernel(folder: Path) -> Iterator[KernelSession]:
    """Start a kernel whose IPython folder is ``folder``; its world is that of this process."""
    manager: Any = KernelManager(kernel_name="python3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        options = ["--InteractiveShell.colors=nocolor", "--HistoryManager.enabled=False"]
        manager.start_kernel(extra_arguments=options)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE_S)
        yield KernelSession(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy()
