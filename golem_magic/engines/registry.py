"""From an engine's name to an engine: ours and strangers' alike are entry points."""

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from golem_magic.engines.base import Engine, EngineOptions
from golem_magic.errors import SettingsError

GROUP = "golem_magic.engines"

# The same as in pyproject.toml, for a source tree that was never installed.
BUILT_IN = {
    "local": "golem_magic.engines.local:LocalEngine",
    "golem": "golem_magic.engines.golem:GolemEngine",
    "slurm": "golem_magic.engines.slurm:SlurmEngine",
}


def load_engine(name: str, options: EngineOptions) -> Engine:
    """Import the engine called ``name`` and build it by its ``from_options``.

    Raises:
        SettingsError: No engine has that name, its module cannot be imported, or ``options``
            lack what it needs.
    """
    point = find_engine(name)
    try:
        engine_class = point.load()
    except (ImportError, AttributeError) as error:
        missing = getattr(error, "name", None) or "what it needs"
        message = f"engine {name} ({point.value}) cannot be imported ({error}): install {missing} to use it"
        raise SettingsError(message) from error
    engine: Engine = engine_class.from_options(options)
    return engine


def find_engine(name: str) -> EntryPoint:
    """Find the engine called ``name`` without importing it.

    Raises:
        SettingsError: No engine has that name.
    """
    known = known_engines()
    if name not in known:
        raise SettingsError(_unknown(name, sorted(known)))
    return known[name]


def known_engines() -> dict[str, EntryPoint]:
    """All engines by name; an installed one takes precedence over the built-in table."""
    known = {name: EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()}
    return known | {point.name: point for point in entry_points(group=GROUP)}


def _unknown(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    return f"there is no engine {name!r}{hint}: set engine to one of {', '.join(known)}"
