"""The magics: their lines turned into calls of the client, completion, and what to show.

Loading is cheap: the client, and with it pickling, HTTP and widgets, comes with the first map.
"""

from golem_magic.magics.magics import GolemMagics, load, unload

__all__ = ["GolemMagics", "load", "unload"]
