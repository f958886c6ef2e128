"""Following one job with a picture.

A view looks at the job from one daemon thread and never drives it: close it and
the job runs on, open two and both are right. Rules of this room:

- from the thread only widget traits are set and displays updated, at most four
  times a second, and only what has changed; printing there would land in
  whichever cell happens to run;
- when the job ends, the output is replaced by plain html and text, so a saved
  notebook holds a summary and no dead widget;
- whatever goes wrong while drawing stays in the view (:attr:`JobView.error`).
"""

import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Self

from golem_magic.model import JobSnapshot, SnapshotSource
from golem_magic.progress.picture import as_text
from golem_magic.progress.surfaces import NotebookOutput, TerminalLine, in_kernel, static_bundle

SHORTEST_INTERVAL_S = 0.25  # four pictures a second are as many as a browser follows with ease


class JobView:
    """Shows a job where :meth:`show` is called, and follows it from one daemon thread.

    The view holds ``source`` and ``cancel`` until the job is final and drops
    both then. Not weakly: a job that ends while nobody else refers to it would
    be gone before its end is drawn.

    Args:
        source: Gives the current snapshot; cheap, and callable from any thread.
        cancel: What the Cancel button calls, in a thread of its own; None for
            no button.
        quiet: Show nothing and start no thread.
        interval_s: Seconds between two looks; under a quarter counts as a quarter.

    Attributes:
        error: What stopped the drawing, None while all is well.
    """

    def __init__(
        self,
        source: SnapshotSource,
        *,
        cancel: Callable[[], None] | None = None,
        quiet: bool = False,
        interval_s: float = SHORTEST_INTERVAL_S,
    ) -> None:
        self.error: Exception | None = None
        self._source: SnapshotSource | None = source
        self._cancel = cancel
        self._quiet = quiet
        self._interval_s = max(interval_s, SHORTEST_INTERVAL_S)
        self._surface: NotebookOutput | TerminalLine | None = None
        self._seen: JobSnapshot | None = None
        self._drawn = ""
        self._drawn_at_s = 0.0
        self._is_over = threading.Event()
        self._reader_saw_the_end = False
        self._lock = threading.Lock()  # one picture at a time: the thread's or refresh()'s

    def show(self) -> Self:
        """Show the job here and follow it until it ends; the second call does nothing."""
        if not self._quiet and self._surface is None:
            self._guarded(self._start)
        return self

    def refresh(self) -> None:
        """Draw now, from the main thread; cheap enough to be called per result.

        A notebook run without a browser keeps only what is published while one
        of its cells runs, and a script ends without waiting for our thread. So
        whoever waits for results calls this when they have come.
        """
        if self._surface is not None and self.error is None:
            self._guarded(lambda: self._update(by_reader=True))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        self._guarded(self._look)
        if self._seen is None:
            return {"text/plain": repr(self)}
        if isinstance(self._surface, NotebookOutput) and not self._is_over.is_set():
            return self._surface.bundle(self._seen)
        return static_bundle(self._seen)

    def __repr__(self) -> str:
        self._guarded(self._look)
        return "JobView()" if self._seen is None else as_text(self._seen)

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - a view that fails to draw must not fail the job
            self.error = error
            self._let_go()

    def _look(self) -> JobSnapshot | None:
        """The newest snapshot, or the last one of a job that has been let go."""
        if self._source is not None:
            self._seen = self._source()
        return self._seen

    def _let_go(self) -> None:
        self._source = self._cancel = None
        self._is_over.set()

    def _start(self) -> None:
        snapshot = self._look()
        if snapshot is None:
            return
        self._surface = NotebookOutput(self._cancel) if in_kernel() else TerminalLine(sys.stderr)
        if snapshot.state.is_final:
            self._end(self._surface, snapshot)
            return
        self._drawn, self._drawn_at_s = as_text(snapshot), monotonic()
        self._surface.start(snapshot)
        threading.Thread(target=self._follow, name="golem-magic-view", daemon=True).start()

    def _follow(self) -> None:
        while not self._is_over.wait(self._interval_s):
            self._guarded(lambda: self._update(by_reader=False))

    def _update(self, *, by_reader: bool) -> None:
        with self._lock:
            surface, snapshot = self._surface, self._look()
            if surface is None or snapshot is None or self._reader_saw_the_end:
                return
            picture = as_text(snapshot)
            if snapshot.state.is_final:
                # Also when the thread has drawn the end already: if that came between
                # two cells, a headless run did not see it.
                self._end(surface, snapshot)
                self._reader_saw_the_end = by_reader
            elif picture != self._drawn and monotonic() - self._drawn_at_s > 0.9 * SHORTEST_INTERVAL_S:
                surface.draw(snapshot)
                self._drawn, self._drawn_at_s = picture, monotonic()

    def _end(self, surface: NotebookOutput | TerminalLine, snapshot: JobSnapshot) -> None:
        self._let_go()
        surface.end(snapshot)
