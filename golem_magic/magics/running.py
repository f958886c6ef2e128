"""Running the cell under ``%%golemize`` so that source, line numbers and errors are those of any cell."""

import ast
import builtins
import sys
import traceback
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeAlias

from IPython.core.error import UsageError

from golem_magic.cells import nearest

Shell: TypeAlias = Any  # an InteractiveShell, which is typed in parts only, other parts in each version


class CellFailed(Exception):  # noqa: N818 - says what happened to the cell, the fault has been shown already
    """Marks the cell as failed after its error has been shown, and shows nothing more."""

    def _render_traceback_(self) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's body, compiled but not run.

    Attributes:
        source: Plain Python; line 1 is empty where the magic's line stands in the notebook.
        parts: What to run, in order.
    """

    source: str
    parts: tuple[CodeType, ...]

    def run(self, shell: Shell) -> None:
        """Run the cell in the user's namespace; what it raises passes."""
        __tracebackhide__ = True
        for part in self.parts:
            exec(part, shell.user_global_ns, shell.user_ns)


def read_cell(shell: Shell, body: str) -> Cell:
    """Compile a cell as the shell would: magics in it work, and its source can be found later.

    Raises:
        CellFailed: It is not Python; the error has been shown.
    """
    __tracebackhide__ = True
    source, name = f"\n{body}", "<cell>"
    try:
        source = _blank_lines(body) + shell.transform_cell(body)
        name = shell.compile.cache(source, running_cell_number(shell), raw_code=f"\n{body}")
        tree = shell.transform_ast(shell.compile.ast_parse(source, name))
        return Cell(source, tuple(_compiled(shell, tree, name, is_quiet=body.rstrip().endswith(";"))))
    except (SyntaxError, ValueError, OverflowError):
        shell.showsyntaxerror(filename=name)
    raise CellFailed


def _blank_lines(body: str) -> str:
    """Give what keeps line numbers right: the magic's line, and what ``transform_cell`` drops."""
    n_dropped = next((n for n, line in enumerate(body.splitlines()) if line.strip()), 0)
    return "\n" * (1 + n_dropped)


def evaluate(shell: Shell, expression: str, names: dict[str, Any]) -> Any:
    """Evaluate an expression of a magic's line; tracebacks through it, lambdas too, show its source.

    Raises:
        UsageError: A name in it is not known.
    """
    __tracebackhide__ = True
    source = f"({expression}\n)"
    file = shell.compile.cache(source, running_cell_number(shell))
    try:
        return eval(compile(source, file, "eval"), names)
    except NameError as error:
        if not _is_raised_in(file, error):  # but deep in something that is called
            raise
        hint = nearest(str(error.name), [*names, *vars(builtins)])
        where = "" if error.name == expression else f" (in {expression})"
        message = f"{error.name} is not defined{where}{hint}"
    raise UsageError(message)


def _is_raised_in(file: str, error: BaseException) -> bool:
    places = list(traceback.walk_tb(error.__traceback__))
    return places[-1][0].f_code.co_filename == file


def _compiled(shell: Shell, tree: ast.Module, name: str, *, is_quiet: bool) -> list[CodeType]:
    """Compile the statements; an expression at the end is shown, as under any cell."""
    shown: list[ast.stmt] = []
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not is_quiet:
        shown = [tree.body.pop()]
    parts = [shell.compile(tree, name, "exec")]
    if shown:
        parts.append(shell.compile(ast.Interactive(shown), name, "single"))
    return parts


def running_cell_number(shell: Shell) -> int:
    """Find the number of the cell that runs now.

    ``execution_count`` is that number in IPython 8 and the next one in IPython 9, so the frames
    are asked first: one of them belongs to the running cell.
    """
    known: dict[str, int] = getattr(shell.compile, "_filename_map", {})
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        number = known.get(frame.f_code.co_filename)
        is_cell = frame.f_code.co_name == "<module>" and frame.f_globals is shell.user_global_ns
        if number is not None and is_cell:
            return number
    return int(shell.execution_count)
