"""The bodies that tell of files, directories and buckets, made from nodes.

It must not look anything up. Bodies are plain dicts in the contract's order: building models for
each entry of a listing would cost more than reading it.
"""

from __future__ import annotations

import json
from typing import Any

from files_server import auth
from files_server.catalog.nodes import Node
from files_server.catalog.sessions import COMPLETE, Session

Body = dict[str, Any]


class Entries:
    """Makes bodies; knows the public URL."""

    def __init__(self, base_url: str) -> None:
        self._files = f"{base_url}/v1/files"

    def content_url(self, bucket: str, key: str, etag: str) -> str:
        """Where the content is read, and where it is written: fresh in each answer."""
        return f"{self._files}/{bucket}/{key}?alt=media{auth.signature(bucket, key)}"

    def file(self, bucket: str, key: str, node: Node, *, full: bool = False) -> Body:
        """FileResponse, or with `full` FullFileResponse."""
        body: Body = {
            "bucket": bucket,
            "key": key,
            "mime_type": node.mime_type,
            "url": self.content_url(bucket, key, node.etag),
            "bytes": node.size,
            "created_at": node.created_at,
        }
        return body | _attributes(node) if full else body

    def bucket(self, node: Node, *, full: bool = False) -> Body:
        """BucketResponse, or with `full` FullBucketResponse."""
        body: Body = {"name": node.sort_name}
        if full:
            body |= {"created_at": node.created_at} | _attributes(node) | {"read_only": False}
        return body

    def session(self, session: Session) -> Body:
        """FileUploadResponse. A length that is not yet known shows as what is there."""
        size = session.offset if session.size is None else session.size
        return {
            "id": session.id,
            "url": f"{self._files}/session:{session.id}",
            "offset": size if session.state == COMPLETE else session.offset,
            "size": size,
        }


def _attributes(node: Node) -> Body:
    return {
        "etag": node.etag,
        "modified_ns": node.modified_ns,
        "changed_ns": node.changed_ns,
        "accessed_ns": node.accessed_ns,
        "mode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
        "nlink": node.nlink,
        "resource_id": node.rid,
        "xattrs": json.loads(node.xattrs) if node.xattrs else {},
    }
