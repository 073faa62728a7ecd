"""fio's own verification: what it reads must carry the checksum that it wrote, job by job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mount.test_basics import run
from tests.mount.test_tools import need

JOBS = 4
MIB = 16  # a job


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["psync", "mmap"])
@pytest.mark.parametrize("pattern", ["write", "randwrite", "randrw"])
def test_fio_verifies(place: Path, tmp_path: Path, engine: str, pattern: str) -> None:
    """Jobs with a file each; then a second run verifies what lies there."""
    need("fio")
    options = [
        f"--directory={place}",
        "--name=job",
        f"--numjobs={JOBS}",
        f"--size={MIB}m",
        f"--ioengine={engine}",
        f"--rw={pattern}",
        "--blocksize=64k",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--randseed=7",
        "--allrandrepeat=1",
        "--group_reporting",
        "--output-format=json",
    ]
    written = run("fio", *options, "--do_verify=1", "--end_fsync=1", cwd=tmp_path)  # for its notes
    job = _only_job(written)
    assert job["write"]["total_ios"] > 0
    assert job["read"]["total_ios"] >= job["write"]["total_ios"]  # each block was read again
    _only_job(run("fio", *options, "--verify_only", cwd=tmp_path))
    assert sorted(path.stat().st_size for path in place.iterdir()) == [MIB << 20] * JOBS


def _only_job(output: str) -> dict[str, dict[str, int]]:
    (job,) = json.loads(output[output.index("{") :])["jobs"]
    assert job["error"] == 0
    assert isinstance(job, dict)
    return job
