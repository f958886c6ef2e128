"""What was taken, in words."""

from collections.abc import Iterable, Sequence

from golem_magic.sources.choosing import Choice
from golem_magic.sources.statements import Statement


def places(chosen: Sequence[Statement], short: str) -> str:
    """List the cells, or a script's lines, that were run."""
    numbers = sorted({each.cell.number for each in chosen if each.cell.number is not None})
    if numbers:
        return f"cell{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {short}"
    spans: list[list[int]] = []
    for statement in chosen:
        first, last = statement.lines[0], statement.lines[-1]
        if spans and first <= spans[-1][1] + 1:
            spans[-1][1] = max(last, spans[-1][1])
        else:
            spans.append([first, last])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    is_one = len(texts) == 1 and "-" not in texts[0]
    return f"line{'' if is_one else 's'} {', '.join(texts)} of {short}"


def notes(statements: Sequence[Statement], choice: Choice, bound: Iterable[str]) -> str:
    """What the user should know although nothing is wrong."""
    told: list[str] = []
    for position in choice.positions:
        statement = statements[position]
        left = [text for line in statement.lines if (text := statement.cell.magics.get(line))]
        told += [f"without {text} in {at(statement)}" for text in left]
    for position in choice.perhaps:
        statement = statements[position]
        text = " ".join((statement.cell.text.splitlines()[statement.lines[0] - 1]).split())
        told.append(f"not run: {text} in {at(statement)}")
    unknown = sorted(choice.unbound - set(bound))
    guarded = [name for name in unknown if name in choice.hidden]
    if guarded:
        told.append(f"bound under the main guard only, which is not run: {', '.join(guarded)}")
    if others := [name for name in unknown if name not in choice.hidden]:
        told.append(f"bound by nothing in it: {', '.join(others)}")
    return "".join(f"; {note}" for note in told)


def at(statement: Statement) -> str:
    """Say where a statement is."""
    number = statement.cell.number
    return f"line {statement.lines[0]}" if number is None else f"cell {number}"


def listed(names: Iterable[str]) -> str:
    """Name some."""
    shown = sorted(names)
    return f"{', '.join(shown[:10])}, ..." if len(shown) > 10 else ", ".join(shown)
