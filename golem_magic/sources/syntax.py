"""What a statement does to names, as far as its syntax tells."""

import ast
import builtins
from collections.abc import Iterator

# What has names of its own.
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
# Functions known for changing their first argument.
_CHANGING = {"copyto", "fill_diagonal", "heapify", "heappush", "insort", "place", "put", "shuffle"}


def resets(node: ast.stmt) -> Iterator[str]:
    """Names that the statement binds in any case, so that what they were before counts no more."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            adds = isinstance(node, ast.Import)  # "import a.b" and "import a.c" add up
            yield from (each.asname or each.name for each in names if each.asname or not adds)
        case ast.With(items=items, body=body):
            yield from _names_in([each.optional_vars for each in items if each.optional_vars])
            for each in body:
                yield from resets(each)
        case ast.Assign() | ast.AnnAssign(value=ast.expr()):
            yield from _names_in(node.targets if isinstance(node, ast.Assign) else [node.target])
        case _:
            return


def changes(node: ast.stmt) -> Iterator[str]:
    """Names whose values it may change: roots of targets as ``a.b[c]``, of bare calls, of decorators."""
    for each in _own_nodes(node):
        match each:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                yield from _roots_in(targets)
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target) | ast.For(target=target):
                yield from _roots_in([target])
            case ast.Expr(value=ast.Call() as call):
                yield from _changed_by(call)
            case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
                inner = (each.func if isinstance(each, ast.Call) else each for each in decorators)
                yield from (_root(each) for each in inner if isinstance(each, ast.Attribute))
            case _:
                pass


def _changed_by(call: ast.Call) -> Iterator[str]:
    if isinstance(call.func, ast.Attribute):
        yield _root(call.func)
    if call.args and getattr(call.func, "attr", getattr(call.func, "id", "")) in _CHANGING:
        yield _root(call.args[0])


def mentions(node: ast.stmt) -> Iterator[str]:
    """Names that a bare call hands to a function; what that does to them cannot be told."""
    for each in _own_nodes(node):
        match each:
            case ast.Expr(value=ast.Call(func=ast.Name(id=called), args=arguments)):
                if not hasattr(builtins, called) and called != "display":
                    yield from (value.id for value in arguments if isinstance(value, ast.Name))
            case _:
                pass


def _names_in(targets: list[ast.expr]) -> Iterator[str]:
    yield from (target.id for target in _parts(targets) if isinstance(target, ast.Name))


def _roots_in(targets: list[ast.expr]) -> Iterator[str]:
    yield from (_root(target) for target in _parts(targets) if not isinstance(target, ast.Name))


def _parts(targets: list[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List):
            yield from _parts(target.elts)
        else:
            yield target.value if isinstance(target, ast.Starred) else target


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _own_nodes(node: ast.stmt) -> Iterator[ast.AST]:
    """The node and what is in it, in its own scope."""
    todo: list[ast.AST] = [node]
    while todo:
        each = todo.pop()
        yield each
        if not isinstance(each, SCOPES):
            todo += ast.iter_child_nodes(each)
