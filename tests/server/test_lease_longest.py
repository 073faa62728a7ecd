"""The longest lease that a server can be told to grant holds nobody up for longer than he waits."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from files_server.grace import MOST_SECONDS
from files_server.settings import Settings
from filesfs.backend.settings import BackendSettings


def test_a_mount_waits_longer_than_any_lease_lasts() -> None:
    """A change may wait for a lease, and after a kill for those of the server that is gone."""
    assert BackendSettings().timeout > 2 * MOST_SECONDS
    with pytest.raises(ValidationError, match="lease_seconds"):
        Settings(lease_seconds=MOST_SECONDS + 1)
