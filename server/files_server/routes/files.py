"""`/v1/files/{bucket}/{key}`: metadata, content, registration, attributes, names."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from files_server import auth
from files_server.access import require
from files_server.auth import Right
from files_server.catalog import attributes, commits, keeping, listing, moves, nodes, tree
from files_server.catalog.commits import Outcome
from files_server.catalog.database import Transaction
from files_server.catalog.moves import Move
from files_server.catalog.nodes import Node
from files_server.catalog.sessions import Wish
from files_server.catalog.store import Version
from files_server.errors import ApiError, not_found, shown
from files_server.names import Target, check_bucket, check_key, parse_destination
from files_server.routes import asking, bodies
from files_server.routes.describing import described
from filesfs.wire import (
    DIRECTORY,
    AttributesPatch,
    FileResponse,
    Operation,
)

router = APIRouter()
_PATH = "/v1/files/{bucket}/{key:path}"
_MOST_LISTED = 1_000  # entries that come with their directory: a millisecond on the event loop
_ENTRY_HEADER = 4096  # bytes; larger ones (xattrs) are asked for on their own


@router.get(_PATH, **described("get_file", FileResponse))
@router.head(_PATH, include_in_schema=False)
async def read(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    _check(target)
    if asking.is_media(request):
        return await _content(request, target)
    services, full = asking.services_of(request), asking.is_full(request)
    if asking.repeated_since(request) is not None:  # it stands for an answer that was lost
        await services.catalog.heard(services.catalog.latest)
    node = _found(request, target)
    key = target.key
    if node.is_directory:
        if not full and not key.endswith("/"):
            raise not_found(target.bucket, key)
        key = key.removesuffix("/") + "/"
    text = services.entries.file(target.bucket, key, node, full=full)
    if full and node.is_directory:
        text = _with_listing(request, node, text)
    lease = asking.lease_of(request, target, node.rid) if full and not node.is_directory else ""
    response = asking.text_answer(request, text, etag=node.etag)
    if lease:
        response.raw_headers.append((b"files-lease", lease.encode()))
    return response


def _with_listing(request: Request, node: Node, entry: str) -> str:
    """A directory's entry, and what is in it where that is no more than the client wants."""
    most, services = asking.number(request, "Files-Listing") or 0, asking.services_of(request)
    if not listing.HAS_ROWS or not most:
        return entry
    rows = listing.rows_of(services.catalog.at_hand, node.id, min(most, _MOST_LISTED))
    if rows is None:
        return entry
    return f'{entry[:-1]},"listing":{services.entries.rows([rows], more=False)}}}'


@router.put(_PATH, **described("register_bucket_file"))
async def put(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    _check(target)
    if not asking.is_media(request):
        return _register(request, target)
    if target.key.endswith("/"):
        return await _make_directory(request, target)
    mime_type = _mime_type(request)
    wish = Wish(
        target.bucket, target.key, mime_type, asking.conditions_of(request),
        bodies.attributes_of(request), request.headers.get("files-resource", ""),
    )  # fmt: skip
    part = asking.part_of(request)
    uploads = asking.services_of(request).uploads
    outcome = await uploads.put(wish, part, asking.origin_of(request))
    return asking.outcome_answer(request, outcome)


@router.delete(_PATH, **described("delete_file"))
async def delete(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    _check(target)
    services = asking.services_of(request)
    keep = keeping.asked_for(services.settings, auth.current().name)
    keep_parent, conditions = (
        asking.flag(request, "Files-Keep-Parent"),
        asking.conditions_of(request),
    )
    place, since = (target.bucket, target.key), asking.repeated_since(request)

    def apply(tx: Transaction) -> tuple[int, int]:
        if since is not None and (done := tree.repeated(tx, Operation.DELETE, [place], since)):
            return done, 0
        number = moves.delete(tx, place, keep_parent=keep_parent, keep=keep, conditions=conditions)
        return number, tx.now_ns

    origin, search = asking.origin_of(request), since is not None
    number, changed_ns = await services.catalog.remove(apply, origin, aside=search)
    return asking.answer(request, None, number=number, changed_ns=changed_ns)


@router.patch(_PATH, **described("set_attributes", FileResponse, body=AttributesPatch))
async def patch(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    _check(target)
    change = await bodies.body_of(request, AttributesPatch)
    conditions = asking.conditions_of(request)

    def apply(tx: Transaction) -> Outcome:
        node = moves.must_find(tx, (target.bucket, target.key))
        conditions.check(node, target.key)
        if node.is_directory:
            tx.run("UPDATE nodes SET explicit = 1 WHERE id = ?", node.id)
        number = 0
        changed = attributes.apply(tx, node, change)
        if changed is not node:
            keys = [(target.bucket, target.key)]
            if node.nlink > 1 and not node.is_directory:
                keys = commits.names_of(tx, node)
            number = tree.record(tx, Operation.ATTRIBUTES, keys, node.rid, node.etag)
        return Outcome(target.bucket, target.key, changed, number)

    catalog = asking.services_of(request).catalog
    return asking.outcome_answer(request, await catalog.write(apply, asking.origin_of(request)))


@router.api_route(_PATH, methods=["MOVE"], include_in_schema=False)
async def move(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    _check(target)
    services = asking.services_of(request)
    wanted = Move(
        (target.bucket, target.key),
        _destination(request),
        overwrite=request.headers.get("overwrite", "T").upper() != "F",
        exchange=asking.flag(request, "Exchange"),
        keep_parent=asking.flag(request, "Files-Keep-Parent"),
        keep=keeping.asked_for(services.settings, auth.current().name),
        conditions=asking.conditions_of(request),
    )
    since = asking.repeated_since(request)

    def apply(tx: Transaction) -> Outcome | int:
        operation = Operation.EXCHANGE if wanted.exchange else Operation.MOVE
        keys = [wanted.source, wanted.destination]
        done = since is not None and tree.repeated(tx, operation, keys, since)
        return done or moves.move(tx, wanted)

    origin, search = asking.origin_of(request), since is not None
    outcome = await services.catalog.write(apply, origin, aside=search)
    if isinstance(outcome, int):  # who knows where it is by now
        return asking.answer(request, None, number=outcome)
    if asking.is_full(request):
        return asking.outcome_answer(request, outcome)
    changed_ns = outcome.node.changed_ns if outcome.number else 0
    return asking.answer(
        request, None, etag=outcome.node.etag, number=outcome.number, changed_ns=changed_ns
    )


@router.api_route(_PATH, methods=["BIND"], include_in_schema=False)
async def bind(request: Request) -> Response:
    target = asking.target_of(request)
    if located := await asking.registered_answer(request, target):
        return located
    _check(target)
    source, destination = (target.bucket, target.key), _destination(request)
    outcome = await asking.services_of(request).catalog.write(
        lambda tx: moves.bind(tx, source, destination), asking.origin_of(request)
    )
    return asking.outcome_answer(request, outcome)


async def _content(request: Request, target: Target) -> Response:
    services = asking.services_of(request)
    catalog = services.catalog
    cursor = catalog.cursor
    etag = request.query_params.get("version")
    version: Version | None = None
    if etag is not None:
        etag = etag if etag[:1] == '"' else f'"{etag}"'
        version = catalog.version_by_etag(etag, target.bucket, target.key)
    else:
        node, version = _current(request, target)
        if version and version.mime_type != node.mime_type:  # PATCH set another one
            version = replace(version, mime_type=node.mime_type)
    if version is None:
        raise not_found(target.bucket, target.key)
    told = etag is None and asking.is_full(request)
    lease = asking.lease_of(request, target, node.rid) if told else ""
    asked = request.headers
    response = await services.content.answer(request.method, target.key, version, asked)
    response.raw_headers.append((b"files-cursor", cursor.encode()))
    if told:
        # The entry comes as a header, so that an open costs one request.
        entry = services.entries.file(target.bucket, target.key, node, full=True)
        if len(entry) <= _ENTRY_HEADER:  # ASCII, so it can stand in a header
            response.raw_headers.append((b"files-entry", entry.encode()))
            if lease:
                response.raw_headers.append((b"files-lease", lease.encode()))
    return response


def _current(request: Request, target: Target) -> tuple[Node, Version | None]:
    """The file and its content."""
    found = asking.services_of(request).catalog.current(target.bucket, target.key)
    if found is None:
        raise _nothing_at(request, target)
    if found[0].is_directory:
        raise not_found(target.bucket, target.key)
    return found


def _register(request: Request, target: Target) -> Response:
    """Op 9 of a managed bucket: what is there is registered already."""
    node = _found(request, target)
    if node.is_directory:
        raise not_found(target.bucket, target.key)
    body = {
        "bucket": target.bucket,
        "key": target.key,
        "created_at": node.created_at,
        "status": "available",
    }
    return asking.answer(request, body, etag=node.etag)


async def _make_directory(request: Request, target: Target) -> Response:
    async for chunk in request.stream():
        if chunk:
            raise ApiError(400, f"The directory {shown(target.key)} takes no content.")
    conditions, change = asking.conditions_of(request), bodies.attributes_of(request)
    outcome = await asking.services_of(request).catalog.write(
        lambda tx: commits.make_directory(tx, target.bucket, target.key, conditions, change),
        asking.origin_of(request),
    )
    return asking.outcome_answer(request, outcome)


def _check(target: Target) -> None:
    check_bucket(target.bucket)
    check_key(target.key, directory=True)


def _destination(request: Request) -> tuple[str, str]:
    header = request.headers.get("destination")
    if header is None:
        raise ApiError(400, "A Destination header is needed: /v1/files/BUCKET/KEY.")
    base = asking.services_of(request).settings.base_url
    place = parse_destination(header, base)
    require(Right.WRITE, place[0])
    asking.refuse_registered(request, place[0])
    return place


def _found(request: Request, target: Target) -> Node:
    node = nodes.find(asking.services_of(request).catalog.at_hand, target.bucket, target.key)
    if node is None:
        raise _nothing_at(request, target)
    return node


def _nothing_at(request: Request, target: Target) -> ApiError:
    """404: the file or even its bucket is not there."""
    reader = asking.services_of(request).catalog.at_hand
    if nodes.find_id(reader, [target.bucket]) is None:
        return not_found(target.bucket)
    return not_found(target.bucket, target.key)


def _mime_type(request: Request) -> str:
    given = request.headers.get("content-type") or "application/octet-stream"
    if len(given) > 255 or not given.isprintable():
        raise ApiError(400, f"Content-Type {shown(given)} is longer than 255 or not printable.")
    if given in (DIRECTORY, "application/x-directory"):
        raise ApiError(400, f"The type {given} is a directory's: its key ends with a slash.")
    return given
