"""One JupyterLab and one browser for each module here; a notebook per test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.labdriver import Browser, LabServer, Notebook, write_notebook

TESTS = Path(__file__).parents[1]
SHOTS = TESTS.parent / "out"  # not under version control

OpenNotebook = Callable[..., Notebook]


# Per module and not per session: Playwright keeps an event loop in this thread,
# which other tests may want for themselves.
@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabServer, Browser]]:
    if "browser" not in os.environ.get("GOLEM_MAGIC_REQUIRE", "").split(","):
        pytest.importorskip("playwright", reason="playwright is not installed; pip install playwright")

    folder = tmp_path_factory.mktemp("notebooks")
    with LabServer(folder, python_path=[TESTS.parent, TESTS]) as server, Browser() as browser:
        yield server, browser


@pytest.fixture
def open_notebook(lab: tuple[LabServer, Browser], request: pytest.FixtureRequest) -> Iterator[OpenNotebook]:
    """``open_notebook(cell, cell, ...)``; a picture of each page stays in out/ when the test ends."""
    server, browser = lab
    opened: list[Notebook] = []

    def open_it(*cells: str, again: Notebook | None = None) -> Notebook:
        path = again.path if again else server.root / f"{request.node.name}-{len(opened)}.ipynb"
        if not again:
            write_notebook(path, *cells)
        opened.append(server.open(browser, path.name))
        return opened[-1]

    yield open_it
    for number, notebook in enumerate(opened):
        if not notebook.page.is_closed():
            notebook.screenshot(SHOTS / f"{request.node.name}-{number}.png")
            notebook.close()
