"""One picture of a job, made of a snapshot and nothing else: as a line of text and as html."""

import html
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from golem_magic.model import JobSnapshot, JobState

LONGEST_TEXT = 300  # characters of one message; the picture stays small whatever a task says
# Middle tones, to be seen on white and on black. Chosen by eye.
COLOURS = {"done": "#43a047", "failed": "#e5484d", "running": "#1e88e5", "waiting": "rgba(128,128,128,0.45)"}


def as_text(snapshot: JobSnapshot) -> str:
    """Draw the snapshot as one line of text without control characters."""
    return "; ".join([headline(snapshot), *_remarks(snapshot)])


def as_html(snapshot: JobSnapshot) -> str:
    """Draw the snapshot as html that needs neither scripts nor a style sheet.

    Every fact is in the text, since some viewers drop all styles. The bar is a
    table because that is what the sanitizers of untrusted notebooks let pass.
    """
    head = " &middot; ".join(map(_escaped, (_state(snapshot), _time(snapshot))))
    label = f" &middot; {_escaped(snapshot.label)}" if snapshot.label else ""
    foot = f"job {_escaped(snapshot.job_id[:8])} &middot; {as_of()}"
    rows = [
        f"<b>{_escaped(snapshot.function)}</b>{label} &middot; {head}",
        _bar(snapshot) + _legend(snapshot),
        *map(_escaped, _remarks(snapshot)),
        f"<small>{foot}</small>",
    ]
    return "".join(f'<div style="line-height:1.5">{row}</div>' for row in rows)


# -- what the picture says ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tally:
    """Tasks by what became of them; the four parts add up to the total."""

    total: int
    done: int
    failed: int
    running: int
    waiting: int

    @classmethod
    def of(cls, snapshot: JobSnapshot) -> Self:
        settled = snapshot.n_done + snapshot.n_failed
        total = max(snapshot.n_tasks or 0, snapshot.n_staged, settled)
        # Counts are taken one after the other, and nothing runs once the job is final.
        running = 0 if snapshot.state.is_final else min(snapshot.n_running, total - settled)
        return cls(
            total=total,
            done=snapshot.n_done,
            failed=snapshot.n_failed,
            running=running,
            waiting=total - settled - running,
        )


def headline(snapshot: JobSnapshot) -> str:
    """Draw the snapshot as a line without remarks: what may stand while the job runs."""
    label = f" [{snapshot.label}]" if snapshot.label else ""
    title = one_line(f"{snapshot.function}{label} (job {snapshot.job_id[:8]})")
    counts = ", ".join(words for _, words in _counts(snapshot))
    return f"{title}: {_state(snapshot)}, {counts}, {_time(snapshot)}"


def _state(snapshot: JobSnapshot) -> str:
    match snapshot.state:
        case JobState.STAGING:
            return "drawing inputs" if snapshot.n_tasks is None else "starting"
        case JobState.QUEUED:
            return "queued, no worker yet"
        case JobState.RUNNING:
            return f"running on {_plural(snapshot.n_workers, 'worker')}"
        case JobState.DONE:
            return "finished with errors" if snapshot.n_failed else "finished"
        case JobState.FAILED:
            return "given up"
        case JobState.CANCELLED:
            return "cancelled"


def _counts(snapshot: JobSnapshot) -> list[tuple[str, str]]:
    """Kinds of tasks with the words for them, in the order of the bar."""
    tally = _Tally.of(snapshot)
    if snapshot.n_tasks == 0:
        return [("done", "no inputs")]
    still_drawing = snapshot.n_tasks is None and not snapshot.state.is_final
    counts = [("done", f"{tally.done}/{tally.total}{'+' if still_drawing else ''} done")]
    if tally.failed:
        counts.append(("failed", f"{tally.failed} failed"))
    if tally.running:
        counts.append(("running", f"{tally.running} running"))
    if tally.waiting:
        counts.append(("waiting", f"{tally.waiting} {_fate(snapshot.state)}"))
    return counts


def _fate(state: JobState) -> str:
    """What to call tasks without an outcome."""
    match state:
        case JobState.CANCELLED:
            return "not run"
        case JobState.FAILED | JobState.DONE:
            return "without an outcome"
        case _:
            return "waiting"


def _time(snapshot: JobSnapshot) -> str:
    elapsed = _duration(snapshot.elapsed_s, exact=snapshot.state.is_final)
    left_s = _seconds_left(snapshot)
    return elapsed if left_s is None else f"{elapsed}, about {_duration(left_s)} left"


def _seconds_left(snapshot: JobSnapshot) -> float | None:
    """Guess the time to the end from the mean pace so far, None before there is one."""
    settled = snapshot.n_done + snapshot.n_failed
    if snapshot.state is not JobState.RUNNING or snapshot.n_tasks is None or not settled:
        return None
    return max(0, snapshot.n_tasks - settled) * snapshot.elapsed_s / settled


def _duration(seconds: float, *, exact: bool = False) -> str:
    if exact and seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def _remarks(snapshot: JobSnapshot) -> list[str]:
    remarks = []
    if snapshot.n_retried:
        remarks.append(f"{_plural(snapshot.n_retried, 'failed task')} run again")
    if snapshot.n_workers_lost:
        who = "others took over"
        if snapshot.last_takeover is not None:
            who = "{1} took over from {0}".format(*snapshot.last_takeover)
        remarks.append(f"{_plural(snapshot.n_workers_lost, 'worker')} lost, {one_line(who)}")
    if snapshot.first_failure is not None:
        index, message = snapshot.first_failure
        remarks.append(one_line(f"first failure, task {index}: {message}"))
    if snapshot.note:
        remarks.append(one_line(snapshot.note))
    return remarks


def as_of() -> str:
    """Date a picture that may outlive the moment."""
    return f"as of {datetime.now().astimezone():%H:%M on %Y-%m-%d}"


def _plural(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def one_line(text: str) -> str:
    """Turn whatever a user's code said into a bounded line a terminal can show."""
    printable = "".join(mark if mark.isprintable() else " " for mark in text[: 4 * LONGEST_TEXT])
    line = " ".join(printable.split())
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 3] + "..."


def _escaped(text: str) -> str:
    return html.escape(one_line(text))


# -- the bar ------------------------------------------------------------------


def bar_widths(snapshot: JobSnapshot) -> dict[str, float]:
    """Share the bar among done, failed, running and waiting tasks.

    Returns:
        Percentages by kind, which add up to 100; kinds without tasks are left
        out. One failure in a million still gets one percent: it must be seen.
        The widest part pays for that.
    """
    tally = _Tally.of(snapshot)
    counts = {kind: getattr(tally, kind) for kind in COLOURS}
    if not tally.total:
        return {"done" if snapshot.state is JobState.DONE else "waiting": 100.0}
    widths = {kind: max(1.0, round(100 * n / tally.total, 2)) for kind, n in counts.items() if n}
    widest = max(widths, key=lambda kind: widths[kind])
    widths[widest] = round(widths[widest] + 100 - sum(widths.values()), 2)
    return widths


def _bar(snapshot: JobSnapshot) -> str:
    cells = "".join(
        f'<td style="padding:0;border:0;height:10px;width:{width:g}%;background-color:{COLOURS[kind]}"></td>'
        for kind, width in bar_widths(snapshot).items()
    )
    style = "width:100%;max-width:640px;margin:2px 0;border:0;border-collapse:collapse;table-layout:fixed"
    return f'<table style="{style}"><tr>{cells}</tr></table>'


def _legend(snapshot: JobSnapshot) -> str:
    return " &nbsp; ".join(
        f'<span style="color:{COLOURS[kind]}">&#9632;</span> {_escaped(words)}'
        for kind, words in _counts(snapshot)
    )
