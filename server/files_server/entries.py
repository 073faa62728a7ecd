"""The bodies that tell of files, directories and buckets, made from nodes.

It must not look anything up. A file's is written as JSON right away, in the contract's order: a
listing has thousands, and a model or a dict for each would cost more than reading it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from files_server import auth
from files_server.catalog.following import Followed
from files_server.catalog.nodes import Node
from files_server.catalog.sessions import COMPLETE, Session

Body = dict[str, Any]


class Entries:
    """Makes bodies; knows the public URL."""

    def __init__(self, base_url: str) -> None:
        self._files = f"{base_url}/v1/files"
        self._files_json = json.dumps(self._files)[1:-1]

    def file(self, bucket: str, key: str, node: Node, *, full: bool = False) -> str:
        """FileResponse, or with `full` FullFileResponse, as JSON. `url` is where the content is
        read, and where it is written: fresh in each answer.

        Bucket, key, ETag and resource id have no character that JSON escapes but the ETag's quotes.
        """
        text = (
            f'{{"bucket":"{bucket}","key":"{key}","mime_type":{_quoted(node.mime_type)},'
            f'"url":"{self._files_json}/{bucket}/{key}?alt=media{auth.signature(bucket, key)}",'
            f'"bytes":{node.size},"created_at":{node.created_at}'
        )
        return f"{text},{_attributes(node)}}}" if full else text + "}"

    def rows(
        self, rows: Sequence[str], *, more: bool, walk: Iterable[Followed] | None = None
    ) -> str:
        """A directory's entries as `Files-Rows` has them (EXTENSIONS), which are JSON already, and
        those of the directories that a walk comes to next.
        """
        text = (
            f'{{"rows":[{",".join(rows)}],"url":["{self._files_json}/","?alt=media"],'
            f'"has_more":{str(more).lower()}'
        )
        if walk is None:
            return text + "}"
        followed = ",".join([f'["{key}","{rid}",[{inside}]]' for key, rid, inside in walk])
        return f'{text},"walk":[{followed}]}}'

    def bucket(self, node: Node, *, full: bool = False) -> Body:
        """BucketResponse, or with `full` FullBucketResponse."""
        body: Body = {"name": node.sort_name}
        if full:
            attributes: Body = json.loads(f"{{{_attributes(node)}}}")
            body |= {"created_at": node.created_at} | attributes | {"read_only": False}
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


def _attributes(node: Node) -> str:
    """The fields that `view=full` adds, without braces. Xattrs are kept as JSON."""
    (
        _, _, _, _, _, rid, _, etag, _, _, mode, uid, gid, modified_ns, changed_ns, accessed_ns,
        _, xattrs, nlink, _,
    ) = node  # fmt: skip
    return (
        f'"etag":"\\"{etag[1:-1]}\\"","modified_ns":{modified_ns},"changed_ns":{changed_ns},'
        f'"accessed_ns":{accessed_ns},"mode":{"null" if mode is None else mode},'
        f'"uid":{"null" if uid is None else uid},"gid":{"null" if gid is None else gid},'
        f'"nlink":{nlink},"resource_id":"{rid}","xattrs":{xattrs or "{}"}'
    )


@lru_cache(1024)
def _quoted(text: str) -> str:
    """Text as JSON, ASCII; there are few different mime types."""
    return json.dumps(text)
