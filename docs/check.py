"""Check the pages: links lead somewhere, Python in them compiles, what is marked runs.

A fenced block of ``python`` must compile; one of ``ipython`` must compile after IPython has translated
its magics. A page's blocks that stand after the comment ``<!-- runs -->`` are executed, in order, as one
program in an empty home. Links to files of this repository must exist, and so must the heading of a
``#fragment``. Addresses outside are not visited.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(
    r"^(?P<mark><!-- runs -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
RUN_LIMIT_S = 120


def main() -> int:
    """Check all pages, name every fault; 0 when there is none."""
    faults = [f"{page.relative_to(ROOT)}: {fault}" for page in PAGES for fault in faults_of(page)]
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(PAGES)} pages, {len(faults)} faults")
    return 1 if faults else 0


def faults_of(page: Path) -> Iterator[str]:
    """Name what is wrong with one page."""
    text = page.read_text(encoding="utf-8")
    yield from _broken_links(page, FENCE.sub("", text))
    program: list[str] = []
    for block in FENCE.finditer(text):
        line = text.count("\n", 0, block.start("code")) + 1
        yield from _not_compiling(block["language"], block["code"], line)
        if block["mark"]:
            program.append("\n" * max(0, line - 1 - "".join(program).count("\n")) + block["code"])
    if program:
        yield from _not_running(page, "".join(program))


def _broken_links(page: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = unquote(target).partition("#")
        file = page.parent / name if name else page
        if not file.exists():
            yield f"link to {target}, which does not exist"
        elif fragment and file.suffix == ".md" and fragment not in _fragments(file):
            yield f"link to {target}, but no heading there makes that fragment"


def _fragments(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _not_compiling(language: str, code: str, line: int) -> Iterator[str]:
    if language not in ("python", "ipython"):
        return
    if language == "ipython":
        code = TransformerManager().transform_cell(code)
    try:
        compile(code, "block", "exec")
    except SyntaxError as error:
        yield f"line {line + (error.lineno or 1) - 1}: {error.msg}: {(error.text or '').strip()}"


def _not_running(page: Path, program: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="gm-", dir="/tmp") as home:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("GOLEM_MAGIC", "XDG"))
        }
        file = Path(home) / page.with_suffix(".py").name
        file.write_text(program, encoding="utf-8")
        command = [sys.executable, str(file)]
        try:
            run = subprocess.run(
                command,
                env=kept | {"HOME": home, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=RUN_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            yield f"its program did not end within {RUN_LIMIT_S} s"
            return
    if run.returncode:
        yield f"its program failed (line numbers are the page's):\n{run.stderr}"


if __name__ == "__main__":
    sys.exit(main())
