"""The user's one object: results in input order while the job runs, by index, or as they come."""

from golem_magic.results.results import Results
from golem_magic.results.retries import Retries

__all__ = ["Results", "Retries"]
