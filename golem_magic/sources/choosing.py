"""Which statements a name needs, as if the file was run from top to bottom; pure.

A name is looked for at a moment, the position of a statement or the end. What counts is the last
statement before that moment that binds it anew, and all after that which change it. A statement uses
some names when it runs, at its own moment, and those of functions in it when they are called: that
may be while a later statement runs, and is at the end for the function that is mapped.
"""

import ast
import builtins
from collections.abc import Callable, Iterable, Sequence

from golem_magic.sources.statements import Statement


class Choice:
    """What was chosen.

    Attributes:
        positions: Of the statements to run, in order.
        unbound: Names that they use and nothing binds; star imports may.
        hidden: Those of them that a main guard binds, which is not run; with the guard's position.
        perhaps: Positions of statements that were left out, though a function that they call is handed
            a variable that is needed.
    """

    def __init__(self, statements: Sequence[Statement], names: Iterable[str]) -> None:
        self._statements = statements
        self._chosen: set[int] = set()
        self._met: set[tuple[str, int]] = set()
        self._todo: list[tuple[str, int]] = []
        self._seen: set[tuple[int, int]] = set()
        self._firm = set(names)  # what is used for certain
        self.unbound: set[str] = set()
        self._need(names, len(statements))
        self._settle()
        self._include_all(lambda each: each.is_star)
        if any(statements[position].imports for position in self._chosen):
            self._include_all(lambda each: each.is_about_path)
        self.unbound &= self._firm
        self.positions = sorted(self._chosen)
        self.hidden = {name: p for name in self.unbound if (p := self._guard_that_binds(name)) is not None}
        self.perhaps = self._left_out()

    def _need(self, names: Iterable[str], moment: int) -> None:
        self._todo += [(name, moment) for name in names]

    def _settle(self) -> None:
        while self._todo:
            demand = self._todo.pop()
            if demand in self._met:
                continue
            self._met.add(demand)
            name, moment = demand
            found = self._touching(name, moment)
            if not any(name in self._statements[position].binds for position in found):
                # Defined further down only: used out of order, or never. Running tells.
                found += self._touching(name, len(self._statements))
            if not any(name in self._statements[position].binds for position in found):
                if not hasattr(builtins, name):
                    self.unbound.add(name)
                continue
            for position in found:
                self._include(position, moment)

    def _include(self, position: int, moment: int) -> None:
        if (position, moment) in self._seen:
            return
        self._seen.add((position, moment))
        self._chosen.add(position)
        statement, end = self._statements[position], len(self._statements)
        self._need(statement.now, position)
        self._need(statement.hints, end)
        self._firm |= statement.now | statement.later
        self._need(statement.later, moment)
        self._need(statement.later, end)  # a decorator's wrapper, say, is called at the end

    def _touching(self, name: str, moment: int) -> list[int]:
        """Statements before a moment that made the name what it is then."""
        found: list[int] = []
        changed: list[int] = []
        for position in range(moment - 1, -1, -1):
            statement = self._statements[position]
            if statement.is_main_guard:
                continue
            if name in statement.binds:
                # What others have made is not changed by us: a module's state does not travel.
                found += [position] if statement.is_import else [*changed, position]
                changed = []
                if name in statement.resets:
                    break
            elif name in statement.changes:
                changed.append(position)
        return found

    def _include_all(self, wanted: Callable[[Statement], bool]) -> None:
        for position, statement in enumerate(self._statements):
            if wanted(statement) and not statement.is_main_guard:
                self._include(position, position)
        self._settle()

    def _guard_that_binds(self, name: str) -> int | None:
        guards = (p for p, each in enumerate(self._statements) if each.is_main_guard and name in each.binds)
        return next(guards, None)

    def _left_out(self) -> list[int]:
        """Where a bare call is handed a variable that is needed at the end."""
        variables = set[str]()
        for name, moment in self._met:
            if moment == len(self._statements):
                found = [self._statements[position] for position in self._touching(name, moment)]
                if any(name in each.binds for each in found) and not any(map(_defines, found)):
                    variables.add(name)
        return [
            position
            for position, statement in enumerate(self._statements)
            if position not in self._chosen and not statement.is_main_guard
            if not statement.mentions.isdisjoint(variables)
        ]


def _defines(statement: Statement) -> bool:
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(statement.node, kinds)
