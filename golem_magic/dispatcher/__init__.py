"""The one thread that follows a job: look at share and engine, ask the planner, act."""

from golem_magic.dispatcher.follow import Dispatcher
from golem_magic.dispatcher.site import Site

__all__ = ["Dispatcher", "Site"]
