"""Completion of the magics' lines: options, their fixed words, and functions."""

import builtins
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from golem_magic import cells

_LINE = re.compile(r"\s*(?:[\w, ]+=\s*)?(%{1,2}golem(?:ize|_map)?)\s(.*)", re.DOTALL)
_MAGICS = {"%%golemize", "%golem_map", "%golem"}


Matcher: TypeAlias = Callable[[CompletionContext], SimpleMatcherResult]


def make_matcher(user_ns: Mapping[str, Any]) -> Matcher:
    """Make the matcher for a shell's completer; it suppresses the others where it knows best."""

    def golem_matcher(context: CompletionContext) -> SimpleMatcherResult:
        line = context.text_until_cursor.rpartition("\n")[2]
        found = _LINE.fullmatch(line)
        words: list[str] = []
        if found is not None and found[1] in _MAGICS:
            before = found[2].removesuffix(context.token)
            candidates = _candidates(found[1], before, context.token, user_ns)
            words = [word for word in candidates if word.startswith(context.token)]
        completions = [SimpleCompletion(word, type="param") for word in words]
        return SimpleMatcherResult(completions=completions, suppress=bool(words))

    marked: Matcher = context_matcher()(golem_matcher)
    return marked


def _candidates(magic: str, before: str, word: str, user_ns: Mapping[str, Any]) -> Iterable[str]:
    if magic == "%golem":
        return () if before.strip() else cells.command_words()
    if word.startswith("-"):
        return cells.words_of(magic)
    option = (before.split() or [""])[-1]
    if cells.choices_of(option):
        return cells.choices_of(option)
    if option in ("-f", "--function") or (magic == "%golem_map" and cells.expects_function(before)):
        return _names(user_ns, only=callable)
    # The start of INPUTS or of a value. Inside brackets and behind dots IPython does it by itself.
    is_start = not before or before[-1].isspace()
    return [*_names(user_ns), *_names(vars(builtins))] if is_start else ()


def _names(names: Mapping[str, Any], only: Callable[[object], bool] = lambda _: True) -> list[str]:
    return [name for name, value in names.items() if not name.startswith("_") and only(value)]
