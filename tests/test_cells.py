"""The magics' lines, told in tables, and the choice of a cell's function."""

import ast
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golem_magic import cells
from golem_magic.cells import Command, LineOptions, MapLine
from golem_magic.errors import CellError

pytestmark = pytest.mark.unit


def line(code: str | None, inputs: str | None, /, **options: Any) -> MapLine:
    return MapLine(LineOptions(**options, given=frozenset(options)), code, inputs)


MAP_LINES = [
    ("f xs", line("f", "xs")),
    ("f, xs", line("f", "xs")),
    ("f ,xs", line("f", "xs")),
    ("  f   xs  ", line("f", "xs")),
    ("f [x**2 for x in xs if x]", line("f", "[x**2 for x in xs if x]")),
    ("f x**2 for x in xs if x", line("f", "x**2 for x in xs if x")),
    ("(lambda x: x + 1) range(9)", line("(lambda x: x + 1)", "range(9)")),
    ("(lambda x, y: x + y), zip(a, b) --star", line("(lambda x, y: x + y)", "zip(a, b)", star=True)),
    ('-c {"a": 1, "b": 2} f -x', line("f", "-x", common='{"a": 1, "b": 2}')),
    ("f -c -x xs", line("f", "xs", common="-x")),
    ('f xs -o out --label "my label"', line("f", "xs", out="out", label="my label")),
    ("f --label 'it is' xs -o out", line("f", "xs", out="out", label="it is")),
    ("-o out f xs", line("f", "xs", out="out")),
    ("f -o out xs", line("f", "xs", out="out")),
    ("--out=out --chunk-size=5 f xs", line("f", "xs", out="out", chunk_size=5)),
    ("f xs --task-size 10", line("f", "xs", chunk_size=10)),
    ("f xs --chunk-size auto", line("f", "xs", chunk_size="auto")),
    ("f xs --chunk-size -1", line("f", "xs", chunk_size=-1)),  # whether that is allowed is not said here
    ("f xs --on-error skip --workers 4", line("f", "xs", on_error="skip", workers=4)),
    ("f xs --on-error stop --retries 3", line("f", "xs", on_error="stop", retries=3)),
    (
        "f xs --retry-on (OSError, ValueError) --timeout 1.5",
        line("f", "xs", retry_on="(OSError, ValueError)", timeout=1.5),
    ),
    ("--setup lambdas['load it'] f xs", line("f", "xs", setup="lambdas['load it']")),
    ("f count() --stream --keep unread", line("f", "count()", stream=True, keep="unread")),
    ("f xs --disk-budget 2G", line("f", "xs", disk_budget=2 * 2**30)),
    ("f xs --disk-budget=1.5kB", line("f", "xs", disk_budget=1536)),
    ("f xs --disk-budget 500MiB", line("f", "xs", disk_budget=500 * 2**20)),
    ("f xs --error-log 'my errors.txt'", line("f", "xs", error_log="my errors.txt")),
    ("f xs --resources memory=2G", line("f", "xs", resources="memory=2G")),
    ('f xs --resources "memory=2G cores=1"', line("f", "xs", resources="memory=2G cores=1")),
    ("f xs --disk-budget 7", line("f", "xs", disk_budget=7)),
    ("f xs --engine golem --unordered", line("f", "xs", engine="golem", unordered=True)),
    ("f xs --wait --quiet", line("f", "xs", wait=True, quiet=True)),
    ("f a - o", line("f", "a - o")),
    ("f a -b", line("f", "a -b")),
    ("f xs -1", line("f", "xs -1")),
    ("f -1 -2", line("f", "-1 -2")),
    ("f [a -o for a in xs]", line("f", "[a -o for a in xs]")),
    ("f ' -o out --label' -o out", line("f", "' -o out --label'", out="out")),
    ('f "it\'s" "\\" --wait"', line("f", '"it\'s" "\\" --wait"')),
    ("f '''a ' --wait'''", line("f", "'''a ' --wait'''")),
    ("f 1, 2, 3", line("f", "1, 2, 3")),
    ("f, *a, *b", line("f", "*a, *b")),
    ("f xs if xs else ys", line("f", "xs if xs else ys")),
    ("f (yes if a else no)", line("f", "(yes if a else no)")),
    ("models[0].score {1, 2}", line("models[0].score", "{1, 2}")),
    ('table["my key"] xs', line('table["my key"]', "xs")),
    ("make(1, 2)(3) xs", line("make(1, 2)(3)", "xs")),
    ("f xs # only the first --wait", line("f", "xs")),
    ("f '#' # a comment's quote", line("f", "'#'")),
    ("f xs --label #3", line("f", "xs", label="#3")),
    ("f xs;", line("f", "xs")),
    ("f (x := 3, x)", line("f", "(x := 3, x)")),
    ("f ()", line("f", "()")),
]


@pytest.mark.parametrize(("text", "parsed"), MAP_LINES)
def test_a_line_of_golem_map_is_read(text: str, parsed: MapLine) -> None:
    assert cells.parse_map_line(text) == parsed


CELL_LINES = [
    ("", line(None, None)),
    ("   # nothing", line(None, None)),
    ("range(1000)", line(None, "range(1000)")),
    ("-o effects -c table range(1000)", line(None, "range(1000)", out="effects", common="table")),
    ("range(1000) -o effects -c table", line(None, "range(1000)", out="effects", common="table")),
    ("-f scale xs", line(None, "xs", function="scale")),
    ("--function scale --workers 2", line(None, None, function="scale", workers=2)),
    ("-c (a, b) xs", line(None, "xs", common="(a, b)")),
    ("[-x for x in xs] --star", line(None, "[-x for x in xs]", star=True)),
    ("--kwargs rows", line(None, "rows", kwargs=True)),
    ("-xs", line(None, "-xs")),
]


@pytest.mark.parametrize(("text", "parsed"), CELL_LINES)
def test_a_line_of_golemize_is_read(text: str, parsed: MapLine) -> None:
    assert cells.parse_cell_line(text) == parsed


WRONG_MAP_LINES = [
    ("", "FUNCTION is missing"),
    ("# f xs", "FUNCTION is missing"),
    (", xs", "FUNCTION is missing before , xs"),
    ("f", "INPUTS are missing behind FUNCTION f"),
    ("f,", "INPUTS are missing behind FUNCTION f"),
    ("f -o out", "INPUTS are missing behind FUNCTION f"),
    ("f xs -o out more", "'more' stands behind the options"),
    ("f xs -o a --out b", "--out is given twice"),
    ("f xs -o 1st", "'1st' cannot name a variable"),
    ("f xs -o a.b", "'a.b' cannot name a variable"),
    ("f xs -o class", "'class' cannot name a variable: it is a keyword"),
    ("f xs -o", "-o needs the name of a variable; a subtraction has a blank behind its minus: - o"),
    ("f xs -o --wait", "-o needs the name of a variable"),
    ("f xs --out", "--out needs the name of a variable"),
    ("f xs --task-size ten", "--task-size is 'ten', allowed: a whole number or auto"),
    ("f xs --chunk-size 1.5", "--chunk-size is '1.5'"),
    ("f xs --chunk-size ²", "--chunk-size is '²'"),
    ("f xs --workers auto", "--workers is 'auto'"),
    ("f xs --on-error ignore", "--on-error is 'ignore', allowed: raise, return, skip or stop"),
    ("f xs --keep none", "--keep is 'none', allowed: all or unread"),
    ("f xs --retries many", "--retries is 'many', allowed: a whole number"),
    ("f xs --timeout 1h", "--timeout is '1h', allowed: a number of seconds"),
    ("f xs --disk-budget 2X", "--disk-budget is '2X', allowed: a number of bytes, such as 500M or 2G"),
    ("f xs --disk-budget -2G", "--disk-budget is '-2G'"),
    ("f xs --disk-budget", "--disk-budget needs a number of bytes"),
    ("f xs --setup", "--setup needs an expression"),
    ("f xs --retry-on OSError, ValueError", "', ValueError' stands behind the options"),
    ("f xs --wait=yes", "--wait takes no value"),
    ("f xs --chunksize 3", "unknown option --chunksize, did you mean --chunk-size?"),
    ("f xs --zzz", "unknown option --zzz"),
    ("--lable x f xs", "unknown option --lable, did you mean --label?"),
    ("-x f xs", "FUNCTION cannot be -x (unknown option -x"),
    ("f -u xs", "unknown option -u"),
    ("f xs -f g", "-f is for %%golemize only"),
    ("f xs --function g", "--function is for %%golemize only"),
    ("lambda x: x xs", "a lambda goes into brackets"),
    ("f [1, 2", "a bracket is not closed, ] is missing: [1, 2"),
    ("(f xs", "a bracket is not closed"),
    ("f 1)", ") closes nothing"),
    ("f (1]", "] closes nothing"),
    ("f 'abc", "a quote is not closed: 'abc"),
    ("f 'a\\'", "a quote is not closed"),
    ("f xs --label 'abc", "the quote behind --label is not closed"),
    ("f xs ys", "INPUTS is not an expression: xs ys"),
    ("f+ xs", "FUNCTION is not an expression: f+"),
    ("-c a,b f xs", "FUNCTION is missing before ,b f xs"),
    ("-c", "-c needs an expression"),
    ("f\0 xs", "FUNCTION is not an expression"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_MAP_LINES)
def test_a_wrong_line_of_golem_map_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(CellError) as caught:
        cells.parse_map_line(text)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG_CELL_LINES = [
    ("-o out", "--out is about results, but the line has no INPUTS"),
    ("--wait", "--wait is about results, but the line has no INPUTS"),
    ("-f 3 xs", "'3' cannot name a variable"),
    ("-f", "-f needs the name of a function"),
    ("xs ys", "INPUTS is not an expression: xs ys"),
    ("-w xs", "unknown option -w"),
    ("xs --wiat", "unknown option --wiat, did you mean --wait?"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_CELL_LINES)
def test_a_wrong_line_of_golemize_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(CellError) as caught:
        cells.parse_cell_line(text)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["--seed", "--cache", "--estimate"])
def test_what_is_planned_is_refused_as_such(option: str) -> None:
    for text in (f"{option} 3 f xs", f"f xs {option} 3", f"f xs {option}=3", f"f xs {option}"):
        with pytest.raises(CellError, match=f"^{option} is not available yet$"):
            cells.parse_map_line(text)


@given(st.text(alphabet="fxo -,;#'\"()[]{}=:\\1cwait", max_size=30))
def test_any_line_is_read_or_refused(text: str) -> None:
    for parse in (cells.parse_map_line, cells.parse_cell_line):
        try:
            parsed = parse(text)
        except CellError:
            continue
        options = parsed.options
        for expression in (parsed.function, parsed.inputs, *options.expressions().values()):
            if expression is not None:
                assert expression in text
                ast.parse(f"({expression}\n)", mode="eval")


COMMANDS = [
    ("jobs", Command(word="jobs")),
    (" jobs ", Command(word="jobs")),
    ("nodes", Command(word="nodes")),
    ("attach 1f", Command(word="attach", job="1f")),
    ("attach 1f -o results", Command(word="attach", job="1f", out="results")),
    ("retry 1f", Command(word="retry", job="1f")),
    ("retry -o results 1f", Command(word="retry", job="1f", out="results")),
    ("attach --out results 1f", Command(word="attach", job="1f", out="results")),
    ("cancel squares_results", Command(word="cancel", job="squares_results")),
    ("logs 1f", Command(word="logs", job="1f")),
    ("logs squares 17", Command(word="logs", job="squares", task=17)),
    ("config", Command(word="config")),
    ("config workers", Command(word="config", key="workers")),
    ("config workers=4", Command(word="config", key="workers", value="4")),
    ("config workers = 4 ", Command(word="config", key="workers", value="4")),
    ("config workers=", Command(word="config", key="workers", value="")),
    ("config share=/a folder/-x=1", Command(word="config", key="share", value="/a folder/-x=1")),
    ("config share='/a folder'", Command(word="config", key="share", value="/a folder")),
    ("clean", Command(word="clean")),
    ("clean --dry-run --older 1.5", Command(word="clean", dry_run=True, older_days=1.5)),
    ("clean --older=0 --dry-run", Command(word="clean", dry_run=True, older_days=0.0)),
]


@pytest.mark.parametrize(("text", "command"), COMMANDS)
def test_a_command_is_read(text: str, command: Command) -> None:
    assert cells.parse_command(text) == command


WRONG_COMMANDS = [
    ("", "known are attach, cancel, clean, config, jobs, logs, nodes, retry"),
    ("job", "%golem job is not known, did you mean jobs?"),
    ("doctor", "%golem doctor is not available yet; known are attach, cancel"),
    ("jobs all", "used as: %golem jobs"),
    ("attach", "used as: %golem attach JOB [-o NAME]"),
    ("retry", "used as: %golem retry JOB|NAME [-o NAME]"),
    ("attach -o", "used as: %golem attach JOB [-o NAME]"),
    ("attach 1f -o", "used as: %golem attach JOB [-o NAME]"),
    ("attach 1f --oot r", "%golem attach has no option --oot, did you mean --out?: %golem attach JOB"),
    ("attach 1f -o 2x", "'2x' cannot name a variable"),
    ("attach 1f -o class", "'class' cannot name a variable: it is a keyword"),
    ("cancel", "used as: %golem cancel JOB|NAME"),
    ("cancel -1", "used as: %golem cancel JOB|NAME"),
    ("logs", "used as: %golem logs JOB|NAME [TASK]"),
    ("logs 1f first", "used as: %golem logs JOB|NAME [TASK]"),
    ("logs 1f ²", "used as: %golem logs JOB|NAME [TASK]"),
    ("logs --all", "%golem logs has no option --all: %golem logs"),
    ("config work ers=3", "used as: %golem config [KEY[=VALUE]]"),
    ("config =3", "used as: %golem config [KEY[=VALUE]]"),
    ("clean --dry", "%golem clean has no option --dry, did you mean --dry-run?"),
    ("clean --older", "used as: %golem clean [--dry-run] [--older DAYS]"),
    ("clean --older week", "--older is 'week', allowed: a number of days from 0 up"),
    ("clean --older -1", "--older is '-1', allowed"),
    ("clean 3", "used as: %golem clean [--dry-run] [--older DAYS]"),
    ("clean --dry-run --dry-run", "used as: %golem clean"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_COMMANDS)
def test_a_wrong_command_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(CellError) as caught:
        cells.parse_command(text)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="attchlogsnfi -=3x'\"", max_size=24))
def test_any_command_is_read_or_refused(text: str) -> None:
    for word in cells.command_words():
        with contextlib.suppress(CellError):
            assert cells.parse_command(f"{word} {text}").word == word


CELLS = [
    ("def f(x): return x", None, "f"),
    ("def f(x): return x\ndef g(x): return f(x)\ny = 3", None, "g"),
    ("def f(x): return x\ng = lambda x: x", None, "g"),
    ("g = lambda x: x\ndef f(x): return x", None, "f"),
    ("g: object = lambda x: x", None, "g"),
    ("a = b = lambda x: x", None, "a"),
    ("table[0] = lambda x: x\nf = lambda x: x\ntable[1] = lambda x: x", None, "f"),
    ("async def g(x): ...\ndef f(x): return x", None, "f"),
    ("class A:\n    def method(self): ...\ndef f(x):\n    def inner(y): ...\n    return x", None, "f"),
    ("@cache\ndef f(x): return x", None, "f"),
    ("def f(x): return x\ndef g(x): return x", "f", "f"),
    ("from math import sqrt as root\ndef g(x): return x", "root", "root"),
    ("import os.path\ndef g(x): return x", "os", "os"),
    ("scale = partial(mul, 2)\ndef g(x): return x", "scale", "scale"),
    ("if fast:\n    def f(x): return x\nelse:\n    def f(x): return -x", "f", "f"),
    ("class Model:\n    def __call__(self, x): ...", "Model", "Model"),
]


@pytest.mark.parametrize(("source", "name", "chosen"), CELLS)
def test_the_function_of_a_cell_is_chosen(source: str, name: str | None, chosen: str) -> None:
    assert cells.function_in_cell(source, name) == chosen


WRONG_CELLS = [
    ("x = 3", None, "the cell defines no function"),
    ("", None, "the cell defines no function"),
    ("[lambda x: x]", None, "the cell defines no function"),
    ("def f(x): return x\nasync def g(x): ...", None, "async def g cannot be mapped"),
    ("async def g(x): ...\ndef f(x): return x", "g", "async def g cannot be mapped"),
    ("def f(x):\n    def g(y): ...", "g", "the cell does not define g"),
    ("def f(x): return [h for h in x]", "h", "the cell does not define h"),
    ("class A:\n    def method(self): ...", "method", "the cell does not define method"),
    ("def f(x):", None, "the cell is not Python"),
]


@pytest.mark.parametrize(("source", "name", "words"), WRONG_CELLS)
def test_a_cell_without_its_function_is_refused(source: str, name: str | None, words: str) -> None:
    with pytest.raises(CellError, match=words):
        cells.function_in_cell(source, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("-o out ", True),
        ("--wait ", True),
        ("f ", False),
        ("-o ", False),
        ("f xs --wait ", False),
    ],
)
def test_the_place_of_the_function_is_known(text: str, expected: bool) -> None:
    assert cells.expects_function(text) is expected


def test_the_words_of_the_options_are_listed() -> None:
    only_with_a_cell = set(cells.words_of("%%golemize")) - set(cells.words_of("%golem_map"))

    assert only_with_a_cell == {"-f", "--function", "--no-reuse"}
    assert cells.choices_of("--on-error") == ("raise", "return", "skip", "stop")
    assert cells.choices_of("--keep") == ("all", "unread")
    assert cells.choices_of("--nope") == ()
