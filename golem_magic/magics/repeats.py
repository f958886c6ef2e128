"""Cells that are run again unchanged: while their job runs, they get its results instead of a second job."""

import sys
from typing import TYPE_CHECKING, Any

from golem_magic.cells import LineOptions
from golem_magic.errors import CellError

if TYPE_CHECKING:
    from golem_magic.results import Results

# With these the inputs cannot be compared first, so nothing is taken up unless one asks for it and is told.
_BESIDE_THE_POINT = {"stream", "keep", "disk_budget"}


class Repeats:
    """Knows the cells that have mapped something, and the jobs that came of it."""

    def __init__(self) -> None:
        self._cells: set[tuple[str, str]] = set()
        self._jobs: set[str] = set()

    def keywords(self, line: str, cell: str, options: LineOptions) -> dict[str, Any]:
        """What a cell wants that says nothing of it itself: to take up its job if it is run again unchanged.

        Raises:
            CellError: It says yes and no.
        """
        if {"reuse", "no_reuse"} <= options.given:
            message = "--reuse and --no-reuse: give one of them"
            raise CellError(message)
        is_repeated = (line, cell) in self._cells
        self._cells.add((line, cell))
        is_open = options.given.isdisjoint({"reuse", "no_reuse", *_BESIDE_THE_POINT})
        return {"reuse": True} if is_repeated and is_open else {}

    def tell(self, results: "Results") -> None:
        """Say so if these are the results of a job that was known before."""
        job = results.job_id[:8]
        if results.job_id in self._jobs:
            sys.stdout.write(
                f"job {job} does just this and is running: these are its results; for another run of it "
                f"add --no-reuse, or end it first with %golem cancel {job}\n"
            )
        self._jobs.add(results.job_id)
