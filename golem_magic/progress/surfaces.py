"""Where pictures go: a cell's output or a line of the terminal."""

import contextvars
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from golem_magic.model import JobSnapshot
from golem_magic.progress.picture import as_html, as_of, as_text, headline, one_line


class NotebookOutput:
    """A cell's output: a widget while the job runs, html and text in the file.

    Args:
        cancel: What the Cancel button calls; None for no button.
    """

    def __init__(self, cancel: Callable[[], object] | None) -> None:
        self._cancel = cancel
        self._context = contextvars.copy_context()  # of the cell that shows the job
        self._needs_context = False
        self._handle: Any = None
        self._box: Any = None  # None: ipywidgets is missing, the output is replaced instead
        self._picture: Any = None
        self._button: Any = None

    def start(self, snapshot: JobSnapshot) -> None:
        """Show the first picture under the running cell."""
        self._build(snapshot)
        self._display(self.bundle(snapshot))

    def draw(self, snapshot: JobSnapshot) -> None:
        """Show a changed picture."""
        if self._picture is None:
            self._publish(lambda: self._display(static_bundle(snapshot)))
        else:
            self._publish(lambda: setattr(self._picture, "value", as_html(snapshot)))

    def end(self, snapshot: JobSnapshot) -> None:
        """Replace the widget by plain html, in the file as on the page."""
        self._publish(lambda: self._display(static_bundle(snapshot)))
        if self._picture is not None:
            # For a page that is opened again on this kernel and shows the widget.
            self._publish(lambda: setattr(self._picture, "value", as_html(snapshot)))
        if self._button is not None:
            self._publish(lambda: setattr(self._button.layout, "display", "none"))
        self._cancel = None

    def bundle(self, snapshot: JobSnapshot) -> dict[str, Any]:
        """What is displayed and stored while the job runs."""
        widget = {} if self._box is None else self._box._repr_mimebundle_() or {}
        return {**widget, **static_bundle(snapshot)}  # the widget's own text says nothing

    def _display(self, bundle: dict[str, Any]) -> None:
        import IPython.display

        if self._handle is None:
            show: Any = IPython.display.display  # untyped there
            self._handle = show(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def _build(self, snapshot: JobSnapshot) -> None:
        try:
            import ipywidgets
        except ImportError:
            return
        self._picture = ipywidgets.HTML(as_html(snapshot))
        parts = [self._picture]
        if self._cancel is not None:
            self._button = ipywidgets.Button(
                description="Cancel", icon="stop", tooltip="Start no further tasks of this job"
            )
            self._button.on_click(self._clicked)
            _let_clicks_pass_a_busy_cell(self._button)
            parts.append(self._button)
        self._box = ipywidgets.VBox(parts)

    def _clicked(self, _button: object) -> None:
        """Take note of a click and return; an exception here would be seen by nobody."""
        self._button.disabled, self._button.description = True, "Cancelling..."
        threading.Thread(target=self._do_cancel, name="golem-magic-cancel", daemon=True).start()

    def _do_cancel(self) -> None:
        try:
            if self._cancel is not None:
                self._cancel()
        except Exception as error:  # noqa: BLE001 - shown on the button; the job may go on
            complaint = one_line(f"{type(error).__name__}: {error}")
            self._publish(lambda: self._offer_again(complaint))

    def _offer_again(self, complaint: str) -> None:
        self._button.description, self._button.disabled = "Cancel (failed, try again)", False
        self._button.tooltip, self._button.layout.width = complaint, "auto"

    def _publish(self, act: Callable[[], object]) -> None:
        """Send from whichever thread this is.

        A plain thread sends in the name of the latest cell, which front ends and
        headless runners accept; the latter drop what comes in the name of a
        cell that has ended. ipykernel 7.0.0 and 7.0.1 give a plain thread no
        cell at all (LookupError): from then on it is the one that shows the job.
        """
        if not self._needs_context:
            try:
                act()
            except LookupError:
                self._needs_context = True
            else:
                return
        # A copy, since a context runs in one thread at a time.
        self._context.copy().run(act)


def _let_clicks_pass_a_busy_cell(button: Any) -> None:
    """Undo that ipykernel 7.4 answers a widget's messages where the widget was made.

    That is the main thread, so a click would wait for the running cell. The
    front end asks for a thread of its own (a subshell), as 7.0 to 7.3 grant.
    The name is private: where it is missing, nothing changes.
    """
    if hasattr(button.comm, "_reply_subshell_for"):
        button.comm._reply_subshell_for = lambda data, default: default


class TerminalLine:
    """A line on stderr: redrawn in place on a terminal, else only at start and end."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_tty = stream is not None and stream.isatty()
        self._note = ""
        self._is_over = False

    def start(self, snapshot: JobSnapshot) -> None:
        """Write the first line."""
        if self._is_tty:
            self.draw(snapshot)
        else:
            self._write(as_text(snapshot) + "\n")

    def draw(self, snapshot: JobSnapshot) -> None:
        """Redraw the line, unless somebody types: the prompt of IPython is there then."""
        if not self._is_tty or _open_prompt() is not None:
            return
        if snapshot.note and snapshot.note != self._note:
            self._write(f"\r\x1b[K{one_line(snapshot.note)}\n")
        self._note = snapshot.note
        columns = shutil.get_terminal_size().columns
        self._write(f"\r\x1b[K{headline(snapshot)[: columns - 1]}")  # a wrapped line could not be redrawn

    def end(self, snapshot: JobSnapshot) -> None:
        """Write the last line, once."""
        if self._is_over:
            return
        self._is_over = True
        line = ("\r\x1b[K" if self._is_tty else "") + as_text(snapshot) + "\n"
        prompt = _open_prompt() if self._is_tty else None
        if prompt is None:
            self._write(line)
        else:
            _above(prompt, lambda: self._write(line))

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def _open_prompt() -> Any:
    """IPython's prompt if it is waiting for input (a prompt_toolkit application), else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    prompt = getattr(getattr(shell, "pt_app", None), "app", None)
    return prompt if getattr(prompt, "is_running", False) else None


def _above(prompt: Any, write: Callable[[], None]) -> None:
    """Write while the prompt steps aside; it is drawn again below, with what was typed."""
    from prompt_toolkit.application import run_in_terminal

    prompt.loop.call_soon_threadsafe(lambda: run_in_terminal(write), context=prompt.context)


def in_kernel() -> bool:
    """Whether there is a cell to show something under."""
    ipython = sys.modules.get("IPython")  # not imported: then there is no shell either
    return getattr(ipython.get_ipython(), "kernel", None) is not None if ipython else False


def static_bundle(snapshot: JobSnapshot) -> dict[str, Any]:
    """The picture as a saved notebook keeps it, by media type."""
    return {"text/plain": f"{as_text(snapshot)}; {as_of()}", "text/html": as_html(snapshot)}
