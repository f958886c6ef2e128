"""The real clusters of this folder's tests."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.running_slurm import Slurm, three_free_ports


@pytest.fixture(scope="session")
def running_slurm() -> Iterator[Slurm]:
    slurm = Slurm(Path(tempfile.mkdtemp(prefix="gm-slurm-", dir="/tmp")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_BASE_PORT", str(three_free_ports()))
        try:
            slurm.up()
            yield slurm
        finally:
            slurm.down()
            shutil.rmtree(slurm.folder, ignore_errors=True)


@pytest.fixture
def slurm(
    require: Callable[[str], str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Slurm]:
    """A real Slurm, empty and whole, at which this process's commands are directed."""
    require("slurm")
    if os.geteuid():
        pytest.skip("only root can start the test cluster")
    cluster: Slurm = request.getfixturevalue("running_slurm")
    monkeypatch.setenv("SLURM_CONF", str(cluster.folder / "slurm.conf"))
    yield cluster
    cluster.up()
    cluster.run("scancel", "--quiet", f"--user={os.geteuid()}")
