"""Sizes as people write them: ``500M``, ``2G``, ``1.5GiB``."""

import re
from fractions import Fraction

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}  # of 1024, as in ls -h


def n_bytes(text: str) -> int:
    """The number of bytes that a text such as ``2G`` means; units are powers of 1024.

    Raises:
        ValueError: It means none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        message = f"{text!r} is no size"
        raise ValueError(message)
    return int(Fraction(found[1]) * 1024 ** _POWERS[found[2].upper()])
