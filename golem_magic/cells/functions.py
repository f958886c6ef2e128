"""Which function a cell is about."""

import ast

from golem_magic.cells.options import refuse
from golem_magic.errors import CellError


def function_in_cell(source: str, name: str | None = None) -> str:
    """Choose the function of a cell: ``name`` if given, else the last one the cell defines.

    Args:
        source: The cell as plain Python, magics already turned into calls.
        name: What ``-f`` said.

    Returns:
        The name of the last ``def`` or assigned lambda at the top level, whichever stands last.

    Raises:
        CellError: There is none, it is an ``async def``, or the cell does not define ``name``.
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        refuse(f"the cell is not Python: {error}")
    if name is not None:
        return _named(statements, name)
    for statement in reversed(statements):
        found = _defined_by(statement)
        if found is not None:
            return found
    message = "the cell defines no function: write a def, or name a callable that the cell makes with -f NAME"
    raise CellError(message)


def _defined_by(statement: ast.stmt) -> str | None:
    """Give the name of the function that a top-level statement defines, if it does."""
    match statement:
        case ast.FunctionDef(name=name):
            return name
        case ast.AsyncFunctionDef(name=name):
            raise _async_error(name)
        case ast.Assign(targets=targets, value=ast.Lambda()):
            return next((target.id for target in targets if isinstance(target, ast.Name)), None)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.Lambda()):
            return name
        case _:
            return None


def _named(statements: list[ast.stmt], name: str) -> str:
    """Check that the cell binds ``name`` at its top level, in whichever way."""
    binding = [statement for statement in statements if name in _bound_by(statement)]
    if not binding:
        refuse(f"the cell does not define {name}; for a function from elsewhere: %golem_map {name} INPUTS")
    if isinstance(binding[-1], ast.AsyncFunctionDef):
        raise _async_error(name)
    return name


def _async_error(name: str) -> CellError:
    return CellError(f"async def {name} cannot be mapped: write a def that calls asyncio.run({name}(x))")


def _bound_by(node: ast.AST) -> set[str]:
    """Collect the names that a statement binds in its own scope."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Name(id=name, ctx=ast.Store()):
            return {name}
        case ast.alias():
            return {(node.asname or node.name).partition(".")[0]}
        case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return set()
        case _:
            return {name for child in ast.iter_child_nodes(node) for name in _bound_by(child)}
