"""The keywords of a map: what is accepted, what is refused and in which words."""

import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golem_magic import SettingsError
from golem_magic.model import MapOptions
from golem_magic.options import NOT_GIVEN, check_arguments, checked, function_name

pytestmark = pytest.mark.unit

ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"common": None}, {"common": None, "has_common": True}),
    ({"common": NOT_GIVEN}, {"has_common": False}),
    ({"chunk_size": "auto"}, {"chunk_size": None}),
    ({"chunk_size": np.int64(3)}, {"chunk_size": 3}),
    ({"workers": 5}, {"workers": 5}),
    ({"label": None}, {"label": ""}),
    ({"on_error": "stop"}, {"on_error": "stop"}),
    ({"timeout": 3}, {"timeout_s": 3.0}),
    ({"timeout": np.float64(0.5)}, {"timeout_s": 0.5}),
    ({"timeout": 1e-9}, {"timeout_s": 1e-9}),
    ({"retries": 2, "retry_on": OSError}, {"retries": 2, "retry_on": ("builtins.OSError",)}),
    (
        {"retries": 1, "retry_on": (SystemExit, SettingsError)},
        {"retries": 1, "retry_on": ("builtins.SystemExit", "golem_magic.errors.SettingsError")},
    ),
    ({"setup": dict}, {"setup": dict}),
    ({"keep": "unread", "stream": True}, {"keep": "unread", "stream": True}),
    ({"disk_budget": 10**12}, {"disk_budget": 10**12}),
    ({"resources": "memory=2G"}, {"memory_bytes": 2 * 2**30}),
    ({"resources": {"memory": "1.5GiB"}}, {"memory_bytes": 3 * 2**29}),
    ({"resources": {"memory": 10**9}}, {"memory_bytes": 10**9}),
    ({"error_log": "/tmp/errors.txt"}, {"error_log": "/tmp/errors.txt"}),
    ({"error_log": Path("errors.txt")}, {"error_log": os.path.abspath("errors.txt")}),
    ({"resources": None, "seed": None, "cache": False}, {}),
]


@pytest.mark.meets("G-31")
@pytest.mark.parametrize(("said", "meant"), ACCEPTED, ids=str)
def test_what_is_accepted_and_what_it_means(said: dict[str, Any], meant: dict[str, Any]) -> None:
    assert checked(said) == MapOptions(**meant)


NO_CHUNK, NO_WORKERS = (
    "give a whole number from 1 up, or 'auto'",
    "give a whole number from 1 up, or None for as many",
)
NO_BUDGET, NO_SECONDS = (
    "give a whole number of bytes from 1 up, or None for no limit",
    "give seconds above 0, or None",
)
REFUSED: list[tuple[dict[str, Any], str]] = [
    *(({"chunk_size": value}, NO_CHUNK) for value in (0, -1, "ten", 1.5, True, None, np.float64(2), [3])),
    *(({"workers": value}, NO_WORKERS) for value in (0, -1, "two", 2.0, False)),
    *(({"retries": value}, "retries is") for value in (-1, "3", None, 0.5, True)),
    *(
        ({"timeout": value}, NO_SECONDS)
        for value in (0, -1, "10", float("nan"), float("inf"), True, np.ones(2))
    ),
    *(({"disk_budget": value}, NO_BUDGET) for value in (0, -5, "10G", 1e9)),
    *(
        ({"on_error": value}, "give 'raise', 'return', 'skip' or 'stop'")
        for value in ("ignore", None, [], np.ones(2))
    ),
    *(({"keep": value}, "give 'all' or 'unread'") for value in ("some", None, np.ones(2))),
    *(({"label": value}, "give text") for value in (3, b"x")),
    *(
        ({"retries": 1, "retry_on": value}, "give an exception class, a tuple of them, or None for all")
        for value in ((), int, "OSError", [OSError], (OSError, 3), OSError("x"))
    ),
    ({"retry_on": OSError}, "retries is 0: set retries too"),
    ({"setup": 3}, "setup is 3, which cannot be called: give a function without arguments"),
    ({"setup": lambda x: x}, "setup cannot be called without arguments (missing a required argument: 'x')"),
    ({"unordered": True, "keep": "unread"}, "leave unordered out"),
    ({"seed": 1}, "option 'seed' is not available yet: leave it out"),
    ({"cache": True}, "option 'cache' is not available yet"),
    ({"resources": "cores=2 memory=1G"}, "resources: cores is not available yet, memory is"),
    ({"resources": {"memroy": "1G"}}, "resources: unknown resource 'memroy': did you mean 'memory'?"),
    ({"resources": "2G"}, "resources: unknown resource '2G': known are memory, cores, walltime, gpus"),
    *(
        ({"resources": {"memory": value}}, "give bytes, or text such as 500M or 2G, from 64M up")
        for value in ("much", "", 0, -1, 1000, 2.5e9, None, True, np.ones(2))
    ),
    *(({"error_log": value}, "give the path of a file") for value in (3, "", "/tmp", b"x", "a\0b")),
    *(({"resources": value}, "write resources='memory=2G'") for value in (3, "", {}, ["memory=2G"])),
    ({"chunksize": 3}, "unknown option 'chunksize': did you mean 'chunk_size'?"),
    ({"time_out": 3}, "unknown option 'time_out': did you mean 'timeout'?"),
    ({"retrys": 3}, "unknown option 'retrys': did you mean 'retries'?"),
    ({"on_errors": "skip"}, "did you mean 'on_error'?"),
    ({"engin": "golem"}, "did you mean 'engine'?"),
    ({"zzz": 3}, "unknown option 'zzz': the options are common, chunk_size, on_error,"),
]


@pytest.mark.parametrize(("said", "message"), REFUSED, ids=str)
def test_what_is_refused_is_told_on_one_line_with_what_to_give(said: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        checked(said)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert any(name in str(caught.value) for name in said)


async def wait(x: int) -> int:
    return x


async def count(x: int) -> Any:
    yield x


def generate(x: int) -> Any:
    yield x


class Waiting:
    async def __call__(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (3, "3 cannot be called: the first argument is the function"),
        ("square", "'square' cannot be called"),
        (None, "None cannot be called"),
        (wait, "wait is an async function: map a plain one, such as lambda x: asyncio.run(wait(x))"),
        (functools.partial(wait), "partial is an async function"),
        (Waiting(), "Waiting is an async function"),
        (count, "count gives a generator, which cannot be sent back: let it return a list"),
        (generate, "generate gives a generator"),
    ],
)
def test_what_cannot_be_mapped_is_refused(function: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        function_name(function)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (len, "len"),
        (functools.partial(pow, 2), "partial"),
        (int, "int"),
        ("a".join, "join"),
        (threading.Lock, None),
    ],
)
def test_anything_else_that_can_be_called_is_a_function(
    function: Callable[..., Any], name: str | None
) -> None:
    assert function_name(function) == (name or function.__name__)


def one(x: int) -> int:
    return x


def two(x: int, common: int) -> int:
    return x + common


def three(x: int, common: int, value: int) -> int:
    return x + common + value


ARITY: list[tuple[Callable[..., Any], dict[str, Any], list[Any], str]] = [
    (one, {}, [1], ""),
    (one, {"common": 1}, [1], "one cannot be called with 2 arguments, the common data last"),
    (one, {"setup": dict}, [1], "one cannot be called with 2 arguments, the set-up value last"),
    (two, {}, [1], "two cannot be called with 1 argument (missing a required argument: 'common')"),
    (two, {"common": 1}, [1], ""),
    (two, {"setup": dict}, [1], ""),
    (two, {"star": True}, [(1, 2)], ""),
    (two, {"star": True}, [(1, 2, 3)], "two cannot be called with 3 arguments"),
    (two, {"star": True}, [], ""),
    (three, {"common": 1, "setup": dict}, [1], ""),
    (three, {"common": 1, "setup": dict, "star": True}, [()], "three cannot be called with 2 arguments"),
    (lambda *_: 0, {"common": 1, "setup": dict}, [1], ""),
    (lambda: 0, {}, [1], "<lambda> cannot be called with 1 argument (too many positional arguments)"),
    (lambda x, *, key: 0, {}, [1], "(missing a required argument: 'key')"),
    (functools.partial(two, common=3), {}, [1], ""),
    (max, {"common": 1}, [1], ""),
]


@pytest.mark.meets("G-01")
@pytest.mark.parametrize(("function", "said", "first", "message"), ARITY)
def test_a_function_that_does_not_take_what_it_will_get_is_refused(
    function: Callable[..., Any], said: dict[str, Any], first: list[Any], message: str
) -> None:
    options = checked(said)
    name = function_name(function)
    if not message:
        check_arguments(function, name, options, first)
        return
    with pytest.raises(SettingsError) as caught:
        check_arguments(function, name, options, first)

    assert message in str(caught.value)
    assert str(caught.value).endswith("change its parameters, star or common")
