"""What the mount knows: inodes, directories, handles, names. Sync owners; no I/O, no await."""
