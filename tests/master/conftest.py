from collections.abc import Iterator
from pathlib import Path

import pytest
from master.running_master import Master, running_master


@pytest.fixture
def master(state_dir: Path) -> Iterator[Master]:
    """A master with two slots; its tasks end with the test."""
    with running_master(state_dir) as running:
        yield running
