"""Completion of the magics' lines: options, their fixed words, functions, jobs, settings."""

import builtins
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from golem_magic import cells
from golem_magic.settings import Settings

_LINE = re.compile(r"\s*(?:[\w, ]+=\s*)?(%{1,2}golem(?:ize|_map)?)\s(.*)", re.DOTALL)
_MAGICS = {"%%golemize", "%golem_map", "%golem"}
_SHORT_ID = 8  # digits of an id as the table of jobs shows it


Matcher: TypeAlias = Callable[[CompletionContext], SimpleMatcherResult]
JobIds: TypeAlias = Callable[[], Iterable[str]]


def make_matcher(user_ns: Mapping[str, Any], job_ids: JobIds) -> Matcher:
    """Make the matcher for a shell's completer; it suppresses the others where it knows best."""

    def golem_matcher(context: CompletionContext) -> SimpleMatcherResult:
        line = context.text_until_cursor.rpartition("\n")[2]
        found = _LINE.fullmatch(line)
        words: list[str] = []
        if found is not None and found[1] in _MAGICS:
            before = found[2].removesuffix(context.token)
            if found[1] == "%golem":
                candidates = _for_command(before.split(), context.token, user_ns, job_ids)
            else:
                candidates = _for_map(found[1], before, context.token, user_ns)
            words = [word for word in candidates if word.startswith(context.token)]
        completions = [SimpleCompletion(word, type="param") for word in words]
        return SimpleMatcherResult(completions=completions, suppress=bool(words))

    marked: Matcher = context_matcher()(golem_matcher)
    return marked


def _for_command(before: list[str], word: str, user_ns: Mapping[str, Any], job_ids: JobIds) -> Iterable[str]:
    match before:
        case []:
            return cells.command_words()
        case [command, *_] if word.startswith("-"):
            return cells.command_options(command)
        case ["attach" | "cancel" | "logs" as command]:
            n_digits = _SHORT_ID if len(word) <= _SHORT_ID else None
            ids = [job_id[:n_digits] for job_id in job_ids()]
            return ids if command == "attach" else [*_names(user_ns, only=_is_results), *ids]
        case ["config"]:
            return [f"{each.name}=" for each in fields(Settings) if each.compare]
        case _:
            return ()


def _for_map(magic: str, before: str, word: str, user_ns: Mapping[str, Any]) -> Iterable[str]:
    if word.startswith("-"):
        return cells.words_of(magic)
    option = (before.split() or [""])[-1]
    if cells.choices_of(option):
        return cells.choices_of(option)
    is_function = option in ("-f", "--function", "--setup")
    if is_function or (magic == "%golem_map" and cells.expects_function(before)):
        return _names(user_ns, only=callable)
    # The start of INPUTS or of a value. Inside brackets and behind dots IPython does it by itself.
    is_start = not before or before[-1].isspace()
    return [*_names(user_ns), *_names(vars(builtins))] if is_start else ()


def _is_results(value: object) -> bool:
    return hasattr(type(value), "progress") and hasattr(value, "job_id")


def _names(names: Mapping[str, Any], only: Callable[[object], bool] = lambda _: True) -> list[str]:
    return [name for name, value in names.items() if not name.startswith("_") and only(value)]
