"""Drawing a snapshot: one picture of a job as a line of text, as html and as a live widget.

``picture`` makes text and html of a snapshot, ``surfaces`` knows the notebook's
output and the terminal, ``view`` follows a job and puts its picture there.
"""

from golem_magic.progress.picture import as_html, as_text
from golem_magic.progress.view import JobView

__all__ = ["JobView", "as_html", "as_text"]
