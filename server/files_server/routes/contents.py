"""`POST /v1/files/{bucket}?contents=1`: many small files of one directory in one answer.

It must not change anything: it is a POST for the names that its body holds. The answer is 4 bytes,
big-endian, the length of the JSON behind them, which is a page of `Files-Rows` whose rows have one
more field, the crc32c of the content; and then the contents, in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from files_server.catalog import listing, nodes
from files_server.catalog.contents import Found
from files_server.errors import ApiError, not_found, shown
from files_server.exchange import Answer
from files_server.names import Kind, Target, check_bucket, check_key
from files_server.routes import asking, bodies
from files_server.routes.describing import described
from filesfs.wire import ContentsRequest

router = APIRouter()
_TYPE = b"application/vnd.files.contents"


@router.post("/v1/files/{bucket}", **described("read_contents", body=ContentsRequest))
async def read(request: Request) -> Response:
    target = asking.target_of(request)
    if not request.query_params.get("contents"):
        raise HTTPException(405)
    bucket = check_bucket(target.bucket)
    _refuse_registered(request, bucket)
    wanted = await bodies.body_of(request, ContentsRequest)
    prefix, names = _prefix(wanted.prefix), list(dict.fromkeys(wanted.names))
    services = asking.services_of(request)
    cursor = services.catalog.cursor  # before anything is read: what comes later may be missing
    leases: dict[str, str] = {}  # by term: one that ended meanwhile has nothing any more

    def found(files: Sequence[Found]) -> None:
        for each in files:
            place = Target(Kind.KEY, bucket, prefix + each.name)
            lease = asking.lease_of(request, place, each.rid)
            leases[lease.partition(" ")[0]] = lease

    place = (bucket, prefix)
    gathered = await services.contents.gather(place, names, wanted.limit, found)
    if gathered is None:
        if nodes.find_id(services.catalog.at_hand, [bucket]) is None:
            raise not_found(bucket)
        raise not_found(bucket, prefix)
    head = services.entries.rows(gathered.rows, more=gathered.more).encode()
    body = b"".join((len(head).to_bytes(4, "big"), head, *gathered.contents))
    headers = [
        (b"content-type", _TYPE), (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"), (b"files-cursor", cursor.encode()),
    ]  # fmt: skip
    if len(leases) == 1 and "" not in leases:  # all of them, or none
        headers += [(b"files-lease", lease.encode()) for lease in leases.values()]
    return Answer(200, headers, body)


def _refuse_registered(request: Request, bucket: str) -> None:
    """ApiError 501 where files are somebody else's, or cannot be told of in rows."""
    if request.app.state.registered.registrations.get(bucket) is not None:
        raise ApiError(501, f"The bucket {shown(bucket)} is a registered location: not there.")
    if not listing.HAS_ROWS:
        raise ApiError(501, "This server's SQLite is older than 3.38.")


def _prefix(prefix: str) -> str:
    """The directory's key. ApiError 400."""
    if prefix and not prefix.endswith("/"):
        raise ApiError(400, f"The prefix {shown(prefix)} is no directory: it ends without a slash.")
    return check_key(prefix, directory=True) if prefix else ""
