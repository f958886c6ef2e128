"""The page about a master's conduct names real tests, so that it shows what is not tested."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "docs/golem.md").read_text().splitlines() if line.startswith("| ")]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("*.py")
    for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))
}


def test_every_test_named_there_exists() -> None:
    named = {name for row in ROWS for name in re.findall(r"`(test_\w+)`", row)}

    assert len(named) > 60
    assert named <= TESTS, sorted(named - TESTS)


def test_every_line_of_its_tables_names_a_test() -> None:
    rows = [row for row in ROWS if not row.startswith("| What the master does")]

    assert len(rows) > 40
    assert [row for row in rows if "`test_" not in row] == []
