"""The kernel's side: with daemon.py the only place that imports pyfuse3."""
