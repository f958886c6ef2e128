"""Engines are found by name, ours and strangers' alike."""

import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from golem_magic.engines import registry
from golem_magic.engines.base import EngineOptions
from golem_magic.engines.golem import GolemEngine
from golem_magic.engines.registry import load_engine
from golem_magic.errors import SettingsError

pytestmark = pytest.mark.unit

STRANGERS_ENGINE = """
class Engine:
    @classmethod
    def from_options(cls, options):
        engine = cls()
        engine.options = options
        return engine
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path that holds an installed distribution with engines of its own."""
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    lines = [
        "[golem_magic.engines]",
        "strange = strange_engine:Engine",
        "broken = no_such_module_here:Engine",
    ]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    (tmp_path / "strange_engine.py").write_text(STRANGERS_ENGINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "strange_engine", raising=False)
    return tmp_path


def test_our_engine_is_found_by_name_and_built_from_options() -> None:
    engine = load_engine("golem", EngineOptions(server_url="https://host:1", server_password="x"))

    assert isinstance(engine, GolemEngine)
    engine.close()


@pytest.mark.usefixtures("site")
def test_a_strangers_engine_is_found_like_ours() -> None:
    options = EngineOptions(workers=7)

    engine = load_engine("strange", options)

    assert vars(engine) == {"options": options}


@pytest.mark.meets("EX-18")
@pytest.mark.usefixtures("site")
def test_an_engine_that_cannot_be_imported_says_what_is_missing() -> None:
    with pytest.raises(SettingsError, match=r"engine broken .*install no_such_module_here to use it"):
        load_engine("broken", EngineOptions())


@pytest.mark.usefixtures("site")
def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        load_engine("Golm", EngineOptions())

    assert "did you mean golem?" in str(caught.value)
    assert "broken, golem, local, slurm, strange" in str(caught.value)


def test_the_built_in_table_is_that_of_the_metadata() -> None:
    """Both name the same classes, so that an installed and a bare source tree behave alike."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert registry.BUILT_IN.items() <= project["entry-points"][registry.GROUP].items()


def test_every_value_of_the_built_in_table_is_an_entry_point() -> None:
    for name, value in registry.BUILT_IN.items():
        assert EntryPoint(name, value, registry.GROUP).attr.endswith("Engine")
