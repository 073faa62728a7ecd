"""For all tests: none of this machine's own settings reaches them or what they start."""

from __future__ import annotations

import os

_OURS = ("FILESFS_", "FILES_SERVER_")
_SYSTEMD = {"NOTIFY_SOCKET", "CACHE_DIRECTORY", "WATCHDOG_USEC", "WATCHDOG_PID"}

for _name in list(os.environ):
    if _name.startswith(_OURS) or _name in _SYSTEMD:
        del os.environ[_name]
os.environ["FILESFS_CONFIG"] = "/dev/null"  # no settings file either
# A proxy stays set, since installing may need it, but nothing on this machine goes through it.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1,::1"
