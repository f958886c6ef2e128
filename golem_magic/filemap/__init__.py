"""A map from a shell: the function in one file, inputs in another, results into a third."""

from golem_magic.filemap.mapping import Request, map_files, save_results
from golem_magic.filemap.outputs import check_output

__all__ = ["Request", "check_output", "map_files", "save_results"]
