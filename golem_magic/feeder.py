"""How inputs get from their source to the workers: at once, or held back and let through as work is done.

Without limits the caller's thread draws everything before the map returns. A
stream is drawn in a thread of its own, a window ahead of the work; and where
results that nobody has read must not fill the disk, inputs that are on the
share already are shown to the workers only as the reader follows. What is
shown is run for certain, so holding inputs back can never dead-lock: the task
that the reader waits for is always shown.
"""

import threading
from itertools import takewhile
from typing import Any

from golem_magic import payload
from golem_magic.clock import Clock
from golem_magic.dispatcher import Dispatcher
from golem_magic.errors import GolemMagicError, PayloadError, ShareError
from golem_magic.inputs import Ahead, Drawer
from golem_magic.model import MapOptions
from golem_magic.planner import Flow, n_to_show
from golem_magic.share import files, source_error
from golem_magic.share.inputs_log import InputWriter

PAUSE_S = (0.001, 0.05)  # between two looks of a feeder that may not go on, growing
LEARN_S = 0.5  # between two looks for what readers in other kernels have freed; chosen by feel
HINT = "waiting for somebody to read results: those that are unread have used up disk_budget"


class Feeder:
    """Feeds one job.

    Args:
        packer: Packs the inputs; it has packed the function and the first block.
        first: The first block and its frame: it was drawn to see whether it can be sent at all. None
            if the writer has it already.
    """

    def __init__(
        self,
        writer: InputWriter,
        drawer: Drawer,
        dispatcher: Dispatcher,
        packer: payload.Packer,
        first: tuple[list[Any], payload.Frame] | None,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._drawer = drawer
        self._dispatcher = dispatcher
        self._packer = packer
        self._first = first
        self._ahead: Ahead | None = None
        self._clock = clock
        self._born_s = self._learn_at_s = clock.now()

    def feed(self, options: MapOptions) -> None:
        """Stage the inputs as the options say; returns as soon as the caller is not needed any more.

        Where that goes wrong, or is interrupted, the job is cancelled.

        Raises:
            PayloadError: An input cannot be pickled (without ``stream``).
            ShareError: They cannot be written.
        """
        try:
            self._feed(options)
        except BaseException:
            self._dispatcher.cancel()
            self._dispatcher.start()
            raise

    def _feed(self, options: MapOptions) -> None:
        if options.keep == "unread":
            self._dispatcher.reading.on_freed = self._writer.forget
        if not _is_limited(options):
            self._feed_all()
            return
        job = self._dispatcher.manifest.job_id[:8]
        if options.stream:
            self._dispatcher.n_drawn = self._drawer.count
            self._ahead = Ahead(self._drawer, f"golem-inputs-{job}")
        else:
            while self._put(*self._next_block()):
                pass
            self._dispatcher.n_drawn = self._writer.hidden
        self._dispatcher.start()
        threading.Thread(
            target=self._follow, args=(options,), name=f"golem-feeder-{job}", daemon=True
        ).start()

    def _feed_all(self) -> None:
        """Write and show block after block; workers are asked for as soon as there is something to do.

        A handful of inputs is written in one go before the dispatcher starts:
        its thread would only get in the way.
        """
        while self._put(*self._next_block()):
            self._writer.show(self._writer.hidden)
            if self._writer.staged > 1:
                self._dispatcher.start()
        self._close()
        self._dispatcher.start()

    def _next_block(self) -> tuple[list[Any], payload.Frame]:
        """Draw and pickle a block; an empty one ends the inputs."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        block = self._drawer.next_block()
        return block, self._packer.inputs(block, self._writer.staged + self._writer.hidden)

    def _put(self, block: list[Any], frame: payload.Frame) -> bool:
        """Put a block on the share, hidden; tell whether there was one."""
        if not block:
            return False
        self._writer.put(frame, len(block))
        self._drawer.learn(frame.size, len(block))
        return True

    def _take(self, ahead: Ahead, count: int) -> bool:
        """Put what a stream has given on the share, hidden; tell whether more may follow.

        An input that cannot be pickled ends the inputs; what came before it stays.
        """
        if self._first is not None:
            return self._put(*self._next_block())
        is_over, block = ahead.is_over, ahead.take(count)
        start = self._writer.staged + self._writer.hidden
        try:
            self._put(block, self._packer.inputs(block, start))
        except PayloadError as error:
            self._drawer.end(error)
            good = list(takewhile(self._can_be_sent, block))
            self._put(good, self._packer.inputs(good, start))
            return False
        return not is_over

    def _can_be_sent(self, value: Any) -> bool:
        try:
            self._packer.inputs([value], 0)
        except PayloadError:
            return False
        return True

    def _close(self) -> None:
        if self._drawer.error is not None:
            source_error.write(self._dispatcher.paths, self._drawer.error)
        try:
            self._writer.close()
        finally:  # a reader gets what is there, then the error, and does not wait for more
            self._dispatcher.close_inputs(self._writer.staged)

    def _follow(self, options: MapOptions) -> None:
        """The thread of a limited job."""
        hint = ""
        try:
            self._let_through(options)
        except Exception as error:  # noqa: BLE001 - raised again where the reader gets to its place
            self._drawer.end(error)
            if isinstance(error, ShareError):  # the results before that place may wait for the same disk
                hint = f"no more inputs follow: {error}"
        if self._ahead is not None:
            self._ahead.stop()
        self._dispatcher.hint = hint
        try:
            self._close()
        except GolemMagicError as error:
            self._drawer.end(error)

    def _let_through(self, options: MapOptions) -> None:
        pause_s, ahead = PAUSE_S[0], self._ahead
        while not self._dispatcher.snapshot().state.is_final:
            count = n_to_show(self._flow(options))
            if count and ahead is not None and not self._writer.hidden and not self._take(ahead, count):
                ahead = None
            if ahead is None and not self._writer.hidden:
                return
            if count and self._writer.hidden:
                self._writer.show(count)
                self._dispatcher.hint = ""
                self._dispatcher.wake()
                pause_s = PAUSE_S[0]
                continue
            is_full = not count and self._writer.staged == self._dispatcher.book.n_outcomes
            self._dispatcher.hint = HINT if is_full and options.disk_budget is not None else ""
            if is_full and options.keep == "unread":
                self._learn_from_share()
            if count and ahead is not None:
                ahead.wait(PAUSE_S[1])
            else:
                self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S[1])

    def _learn_from_share(self) -> None:
        """See what readers in other kernels have freed, now and then."""
        if self._clock.now() < self._learn_at_s:
            return
        self._learn_at_s = self._clock.now() + LEARN_S
        book, names = self._dispatcher.book, set(files.names(self._dispatcher.paths.data))
        kept = [entry.size for entry in list(book.order) if entry.file in names]
        self._dispatcher.reading.note_kept(sum(kept), book.n_bytes)
        if not kept:
            self._dispatcher.reading.want(self._writer.staged)

    def _flow(self, options: MapOptions) -> Flow:
        dispatcher = self._dispatcher
        n_outcomes = dispatcher.book.n_outcomes
        return Flow(
            n_shown=self._writer.staged,
            n_outcomes=n_outcomes,
            wanted=dispatcher.reading.wanted,
            outcome_bytes=dispatcher.book.n_bytes / n_outcomes if n_outcomes else 0.0,
            unread_bytes=dispatcher.book.n_bytes - dispatcher.reading.n_bytes,
            workers=dispatcher.manifest.workers,
            tasks_per_s=n_outcomes / max(self._clock.now() - self._born_s, 1e-3),
            is_stream=options.stream,
            disk_budget=options.disk_budget,
        )


def _is_limited(options: MapOptions) -> bool:
    return options.stream or options.disk_budget is not None
