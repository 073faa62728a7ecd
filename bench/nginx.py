"""nginx with sendfile over one folder: the yardstick for a whole-file GET.

It must not touch an nginx of the machine: configuration, logs, pid and port are its own.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.systems import free_port, running, wait_for_port

CONFIGURATION = """
user root;
worker_processes 1;
daemon off;
pid {prefix}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {prefix}/body;
  proxy_temp_path {prefix}/proxy;
  fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi;
  scgi_temp_path {prefix}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def program() -> str | None:
    """Where nginx is; None if it is not installed."""
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")


@contextlib.contextmanager
def serving(root: Path, prefix: Path) -> Iterator[int]:
    """The port of an nginx that serves `root`, for as long as the context lasts."""
    prefix.mkdir(exist_ok=True)
    port = free_port()
    configuration = prefix / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(prefix=prefix, port=port, root=root))
    command = [program() or "nginx", "-p", str(prefix), "-c", str(configuration)]
    with running(command, prefix / "nginx.log"):
        wait_for_port(port)
        yield port
