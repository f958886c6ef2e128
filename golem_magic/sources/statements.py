"""What each top-level statement binds and uses, told by its bytecode, so by the compiler's own rules."""

import __future__

import ast
import dis
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

from golem_magic.errors import CellError
from golem_magic.sources import syntax
from golem_magic.sources.reading import Cell

_LAZY = __future__.annotations.compiler_flag
_LOADS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
_STORES = {"STORE_NAME", "STORE_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL"}
# Functions of the compiler's own that run with the statement that they are in.
_AT_ONCE = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<generic parameters", "__annotate__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement at the top level of a file.

    Attributes:
        cell: Where it is.
        node: Its syntax.
        code: What runs.
        binds: Names that it binds, perhaps only sometimes.
        resets: Those of them that mean nothing of what they were before.
        changes: Names whose value it may change without binding them.
        mentions: Variables that it hands to a function, for nothing but what that does.
        now: Names that it uses when it runs.
        hints: Names in annotations that are not evaluated, though others, such as dataclasses, may.
        later: Names that functions in it use when they are called.
        imports: Whether it, or a function in it, imports anything.
    """

    cell: Cell
    node: ast.stmt
    code: CodeType
    binds: frozenset[str]
    resets: frozenset[str]
    changes: frozenset[str]
    mentions: frozenset[str]
    now: frozenset[str]
    hints: frozenset[str]
    later: frozenset[str]
    imports: bool

    @property
    def lines(self) -> range:
        """Its lines, decorators too."""
        decorators = getattr(self.node, "decorator_list", [])
        first = min([self.node.lineno, *(each.lineno for each in decorators)])
        return range(first, (self.node.end_lineno or self.node.lineno) + 1)

    @property
    def is_import(self) -> bool:
        """Whether its names stand for modules, or for what others have made."""
        return isinstance(self.node, ast.Import | ast.ImportFrom)

    @property
    def modules(self) -> list[str]:
        """The top-level names of the modules that it imports, if it is an import."""
        match self.node:
            case ast.Import(names=names):
                return [each.name.partition(".")[0] for each in names]
            case ast.ImportFrom(module=str(module), level=0):
                return [module.partition(".")[0]]
            case _:
                return []

    @property
    def is_star(self) -> bool:
        """Whether it may bind any name."""
        return isinstance(self.node, ast.ImportFrom) and self.node.names[0].name == "*"

    @property
    def is_main_guard(self) -> bool:
        """Whether it is what a script does, and not what it defines."""
        match self.node:
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()])):
                return True
            case ast.If(test=ast.Compare(comparators=[ast.Name(id="__name__")], ops=[ast.Eq()])):
                return True
            case _:
                return False

    @property
    def is_about_path(self) -> bool:
        """Whether it may change where imports look."""
        if isinstance(self.node, syntax.SCOPES) or "sys" not in self.now:
            return False
        return any(isinstance(each, ast.Attribute) and each.attr == "path" for each in ast.walk(self.node))

    @property
    def magic(self) -> str | None:
        """The first magic that was taken out of it, and stood for a value there."""
        found = (self.cell.magics.get(line) for line in self.lines)
        return next(
            (text for text in found if text and text[0] not in "%!?" and text.rstrip("; ")[-1] != "?"), None
        )


def read_statements(cells: list[Cell]) -> tuple[list[Statement], list[tuple[Cell, str]]]:
    """Take cells apart.

    Returns:
        The statements in their order, and the cells that gave none, with the reason.
    """
    statements: list[Statement] = []
    faulty: list[tuple[Cell, str]] = []
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for cell in cells:
        if cell.fault:
            faulty.append((cell, cell.fault))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the author has seen them
            try:
                body = ast.parse(cell.source).body
                for node in body:
                    flags |= _future(node)
                statements += [_statement(cell, node, flags) for node in body]
            except (SyntaxError, ValueError) as error:  # such as a return outside of functions
                if cell.number is None:
                    message = f"{cell.file} is not Python ({error}): mend it first"
                    raise CellError(message) from error
                faulty.append((cell, f"is not Python ({error})"))
    return statements, faulty


def _statement(cell: Cell, node: ast.stmt, flags: int) -> Statement:
    code = compile(ast.Module([node], []), cell.file, "exec", flags=flags, dont_inherit=True)
    now, later, stored = set[str](), set[str](), set[str]()
    _collect(code, now, later, stored)
    return Statement(
        cell=cell,
        node=node,
        code=code,
        binds=frozenset(stored),
        resets=frozenset(syntax.resets(node)),
        changes=frozenset(syntax.changes(node)),
        mentions=frozenset(syntax.mentions(node)),
        now=frozenset(now),
        hints=frozenset(_hints(cell, node, flags) - now),
        later=frozenset(later),
        imports=_imports(code),
    )


def _hints(cell: Cell, node: ast.stmt, flags: int) -> set[str]:
    if not flags & _LAZY:
        return set()
    code = compile(ast.Module([node], []), cell.file, "exec", flags=flags & ~_LAZY, dont_inherit=True)
    names = set[str]()
    _collect(code, names, set(), set())
    return names


def _imports(code: CodeType) -> bool:
    if any(instruction.opname == "IMPORT_NAME" for instruction in dis.get_instructions(code)):
        return True
    return any(isinstance(inner, CodeType) and _imports(inner) for inner in code.co_consts)


def _future(node: ast.stmt) -> int:
    """The compiler's flags that a statement sets for all that follow."""
    if not isinstance(node, ast.ImportFrom) or node.module != "__future__":
        return 0
    features = [getattr(__future__, each.name, None) for each in node.names]
    return sum(feature.compiler_flag for feature in features if feature is not None)


def _collect(code: CodeType, now: set[str], later: set[str], stored: set[str]) -> None:
    """Sort the names of code that runs at once; what it stored before it loads it, it does not need."""
    for instruction in dis.get_instructions(code):
        value = instruction.argval
        if instruction.opname in _STORES:
            stored.add(value)
        elif instruction.opname in _LOADS and value not in stored:
            now.add(value)
        elif isinstance(value, CodeType):
            if value.co_name.startswith(_AT_ONCE) or not value.co_flags & inspect.CO_OPTIMIZED:
                _collect(value, now, later, set(stored))  # the latter is a class's body
            else:
                later.update(_used_in(value))


def _used_in(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _LOADS:
            yield str(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _used_in(inner)
