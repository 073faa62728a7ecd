"""`filesfs status --prometheus`: the numbers of the answers, and whether a mount serves."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from filesfs.commands import status


def test_numbers_of_each_mount() -> None:
    answers = [
        {
            "source": "http://h:1/b", "mountpoint": '/mnt/a "b"', "state": "serving", "pid": 7,
            "unsent_files": 3, "feed": True, "extensions": ["move"],
        },
        {"source": "unix:/s", "mountpoint": "/mnt/c", "state": "dead"},
    ]  # fmt: skip
    found = {
        (sample.name, sample.labels["mountpoint"]): sample.value
        for family in text_string_to_metric_families(status.prometheus(answers))
        for sample in family.samples
    }
    assert found == {
        ("filesfs_up", '/mnt/a "b"'): 1.0,
        ("filesfs_unsent_files", '/mnt/a "b"'): 3.0,
        ("filesfs_feed", '/mnt/a "b"'): 1.0,
        ("filesfs_up", "/mnt/c"): 0.0,
    }
