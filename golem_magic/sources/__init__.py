"""A function out of a notebook or script file, with what it needs and nothing else of that file run.

The file's top-level statements are read, never all of them executed: those are chosen that bind
the function's name, then those that bind what it uses, and so on, as if the file was run from top to
bottom. They run once, in their order, in a namespace of their own.
"""

from golem_magic.sources.running import Taken, take

__all__ = ["Taken", "take"]
