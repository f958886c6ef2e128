"""Drives a real JupyterLab in a headless Chromium.

::

    with LabServer(folder) as server, Browser() as browser:
        notebook = server.open(browser, "demo.ipynb")
        notebook.run_all()
        notebook.wait_for_text("12/40 done", cell=0)
        notebook.click("Cancel", cell=0)

Configuration, data, runtime, IPython and browser profile are private and
temporary, so the developer's own settings cannot change a test. The server
listens on loopback at a port the system chooses. Kernels are deleted through
the server, which is ended by its pid.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

files: Any = nbformat  # its functions are untyped
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = [
    "--no-sandbox",  # root has none; the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Every cell is in the page, nothing saves by itself, nothing asks for news.
LAB_SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
PRIVATE_FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
}
# The panel of the open notebook, whichever part of the page has the focus.
PANEL = """[...window.jupyterapp?.shell.widgets('main') ?? []].find(
    widget => widget.sessionContext && widget.content?.widgets && widget.content.model)"""


def find_browser() -> str | None:
    """Give the path of a Chromium or Chrome, None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook of these code cells for the default kernel."""
    notebook = files.v4.new_notebook(cells=[files.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    files.write(notebook, path)


class LabServer:
    """A JupyterLab of its own, up while the ``with`` block runs.

    Args:
        root: Folder whose notebooks it serves.
        python_path: What the kernels can import besides what is installed.
        env: More environment for the server and its kernels.
    """

    def __init__(
        self, root: Path, *, python_path: Sequence[Path] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        self._env = {**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(map(str, python_path))}
        self._token = secrets.token_hex(16)
        self._url = ""

    def __enter__(self) -> Self:
        self._private = Path(tempfile.mkdtemp(prefix="labdriver-"))
        for variable, name in PRIVATE_FOLDERS.items():
            (self._private / name).mkdir(mode=0o700)
            self._env[variable] = str(self._private / name)
        for plugin, values in LAB_SETTINGS.items():
            path = self._private / "settings" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        self._log = self._private / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self.root,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            for kernel in self.api("GET", "kernels"):
                self.api("DELETE", f"kernels/{kernel['id']}")
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        shutil.rmtree(self._private, ignore_errors=True)

    def api(self, method: str, path: str) -> Any:
        """Ask the server's REST interface."""
        request = urllib.request.Request(
            f"{self._url}api/{path}", method=method, headers={"Authorization": f"token {self._token}"}
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=20) as answer:
            return json.loads(answer.read() or "null")

    def open(self, browser: "Browser", name: str) -> "Notebook":
        """Open a notebook of the root folder in a page of its own, and wait for its kernel."""
        page = browser.new_page()
        page.goto(f"{self._url}lab/tree/{urllib.parse.quote(name)}?reset&token={self._token}")
        notebook = Notebook(page, self.root / name)
        notebook.wait("panel.context.isReady && panel.sessionContext.isReady")
        notebook.wait_until_idle()
        return notebook

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={self.root}"),
            f"--IdentityProvider.token={self._token}",
            "--LabApp.expose_app_in_browser=True",  # window.jupyterapp
            f"--LabApp.user_settings_dir={self._private / 'settings'}",
            f"--LabApp.workspaces_dir={self._private / 'workspaces'}",
            *("--LabApp.extension_manager=readonly", "--LabApp.news_url="),
        ]

    def _wait_until_up(self, timeout_s: float = 60.0) -> None:
        # Written once the port is bound, so nobody else can be met there.
        address = self._private / "runtime" / f"jpserver-{self._process.pid}.json"
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                self._url = json.loads(address.read_text())["url"]
                self.api("GET", "status")
                return
            time.sleep(0.05)
        message = f"JupyterLab did not come up; its log ends with\n{self._log.read_text()[-3000:]}"
        raise RuntimeError(message)


class Browser:
    """The system's Chromium with a fresh profile for each page."""

    def __init__(self, executable: str | None = None, size: tuple[int, int] = (1100, 700)) -> None:
        self._executable = executable or find_browser()
        self._size = size

    def __enter__(self) -> Self:
        from playwright.sync_api import sync_playwright  # not needed to read this module

        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(
                executable_path=self._executable, args=BROWSER_FLAGS
            )
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def new_page(self) -> "Page":
        """Open an empty page with a profile of its own."""
        width, height = self._size
        return self._browser.new_context(viewport={"width": width, "height": height}).new_page()


class Notebook:
    """One open notebook; cells are numbered from 0."""

    def __init__(self, page: "Page", path: Path) -> None:
        self.page = page
        self.path = path

    def js(self, body: str, arg: object = None) -> Any:
        """Run JavaScript with ``app``, ``panel`` and ``arg`` in scope; it may await and return."""
        return self.page.evaluate(
            f"async arg => {{ const app = window.jupyterapp; const panel = {PANEL}; {body} }}", arg
        )

    def wait(self, condition: str, *, timeout_s: float = 60.0) -> None:
        """Wait for a JavaScript expression over ``panel`` to become true."""
        self.page.wait_for_function(
            f"() => {{ const panel = {PANEL}; return panel && ({condition}); }}",
            timeout=1000 * timeout_s,
            polling=50,
        )

    def wait_until_idle(self, *, timeout_s: float = 60.0) -> None:
        """Wait until no cell runs or is queued and the kernel is idle."""
        self.wait(
            "panel.sessionContext.session?.kernel?.status === 'idle' && panel.content.widgets.every("
            "cell => !(cell.promptNode?.textContent ?? '').includes('*'))",
            timeout_s=timeout_s,
        )

    def run_all(self) -> None:
        """Run all cells to the end."""
        self.js("await app.commands.execute('notebook:run-all-cells')")
        self.wait_until_idle()

    def run(self, cell: int) -> None:
        """Run one cell to its end."""
        self.start(cell)
        self.wait_until_idle()

    def start(self, cell: int) -> None:
        """Run one cell and return once it runs."""
        self.js("panel.content.activeCellIndex = arg; panel.content.deselectAll()", cell)
        self.js("app.commands.execute('notebook:run-cell')")
        self.wait(f"/[*0-9]/.test(panel.content.widgets[{cell}].promptNode.textContent)")

    def interrupt(self) -> None:
        """Press the notebook's own stop button."""
        self.js("await panel.sessionContext.session.kernel.interrupt()")

    def shut_down(self) -> None:
        """End the kernel; the page stays."""
        self.js("await panel.sessionContext.shutdown()")

    def output(self, cell: int) -> "Locator":
        """The cell's outputs in the page."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def text(self, cell: int) -> str:
        """What a reader sees under the cell."""
        return "\n".join(self.output(cell).locator(".jp-OutputArea-output").all_inner_texts())

    def wait_for_text(self, text: str, *, cell: int, timeout_s: float = 30.0) -> str:
        """Wait until a reader sees ``text`` under the cell, and give all there is."""
        deadline = time.monotonic() + timeout_s
        while text not in (seen := self.text(cell)):
            assert time.monotonic() < deadline, f"{text!r} not seen in {timeout_s} s, but:\n{seen[-2000:]}"
            self.page.wait_for_timeout(30)
        return seen

    def wait_until(self, is_so: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
        """Wait until something seen on the page is so."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < deadline, f"not seen in {timeout_s} s"
            self.page.wait_for_timeout(30)

    def click(self, label: str, *, cell: int) -> None:
        """Press a button among the cell's outputs."""
        self.output(cell).get_by_role("button", name=label).click(timeout=10_000)

    def stored_outputs(self, cell: int) -> list[Any]:
        """Save, and read the cell's outputs back from the file."""
        self.js("await panel.context.save()")
        outputs: list[Any] = files.read(self.path, 4).cells[cell].outputs
        return outputs

    def screenshot(self, path: Path) -> None:
        """Put a picture of the page into a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)

    def close(self) -> None:
        """Close the page with its profile; the kernel stays."""
        self.page.context.close()
