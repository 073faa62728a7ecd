"""The tables of the catalog, for SQLite and PostgreSQL alike.

It must not hold queries. Names compare by bytes: BINARY in SQLite, collation "C" in PostgreSQL.

Names and files are apart: a node is a name in a directory, a resource is what it names, so that
a hard link is a second node, and a directory moves whole with one UPDATE of its node. A version
is content: the current one of a resource, or a superseded one that can still be read.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)

FORMAT_VERSION = 1  # of the data folder; a newer one is refused
REVISION = "0004"  # of the tables; the newest file in migrations/versions
FILE, DIRECTORY, BUCKET = 0, 1, 2  # resources.kind

metadata = MetaData()
_Text = String().with_variant(String(collation="C"), "postgresql")
_Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER PRIMARY KEY is SQLite's row id

meta = Table(
    "meta",
    metadata,
    Column("name", _Text, primary_key=True),
    Column("value", _Text, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("parent_id", _Id, nullable=False),  # 0: a bucket
    # A directory's name ends with "/" here, so that walking depth first goes by key bytes.
    Column("sort_name", _Text, nullable=False),
    Column("explicit", SmallInteger, nullable=False),  # 0: goes with its last child
    Column("resource_id", _Id, ForeignKey("resources.id"), nullable=False),
    Index("nodes_by_name", "parent_id", "sort_name", unique=True),
    Index("nodes_by_resource", "resource_id"),
)

resources = Table(
    "resources",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("rid", _Text, nullable=False, unique=True),
    Column("kind", SmallInteger, nullable=False),
    Column("etag", _Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mime_type", _Text, nullable=False),
    Column("mode", Integer),
    Column("uid", BigInteger),
    Column("gid", BigInteger),
    Column("modified_ns", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("accessed_ns", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("xattrs", _Text),  # JSON object of base64 strings; null: none
    Column("nlink", Integer, nullable=False),
    Column("version_id", _Id),
    Index("resources_by_version", "version_id"),
)

versions = Table(
    "versions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("etag", _Text, nullable=False, unique=True),
    Column("bucket", _Text, nullable=False),  # who may read the bucket may read the version
    Column("size", BigInteger, nullable=False),
    Column("mime_type", _Text, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("blob", _Text),  # null: the bytes are in contents
    Column("crc32c", LargeBinary, nullable=False),  # 4 bytes, big-endian, for each MiB
    Column("expires_at", BigInteger),  # Unix seconds; null: current
    # Where in the blob each MiB is, counted in MiB, 4 bytes, big-endian; null: in order.
    Column("blocks", LargeBinary),
    Index("versions_by_expiry", "expires_at", sqlite_where=text("expires_at IS NOT NULL")),
)

contents = Table(
    "contents",
    metadata,
    Column("version_id", _Id, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("request", _Text, nullable=False),  # JSON: what op 1 asked for
    Column("size", BigInteger),  # null: not yet known
    Column("offset", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),  # 0 open, 1 complete, 2 cancelled
    Column("last_offset", BigInteger, nullable=False),  # where the part that completed it began
    Column("answer", _Text),  # JSON of the full entry, once complete
    Column("touched_at", BigInteger, nullable=False),
    # Of an upload that shares a version's blob, as in versions; null: it has a file of its own.
    Column("blocks", LargeBinary),
    Column("crc32c", LargeBinary),
    # Op 1 counts the open ones, among all that were completed within the hour.
    Index(
        "sessions_open",
        "state",
        sqlite_where=text("state = 0"),
        postgresql_where=text("state = 0"),
    ),
)

# What can be undeleted: versions that lost their name, and what they were then. A row goes with its
# version, when that expires.
deleted = Table(
    "deleted",
    metadata,
    Column("version_id", _Id, primary_key=True),
    Column("bucket", _Text, nullable=False),
    Column("key", _Text, nullable=False),
    Column("deleted_at", BigInteger, nullable=False),  # Unix seconds
    Column("replaced", SmallInteger, nullable=False),  # 1: another content took its place
    Column("deleted_by", _Text, nullable=False),  # the token's name; "" without tokens
    Column("mime_type", _Text, nullable=False),
    Column("mode", Integer),
    Column("uid", BigInteger),
    Column("gid", BigInteger),
    Column("modified_ns", BigInteger, nullable=False),
    Column("accessed_ns", BigInteger, nullable=False),
    Column("xattrs", _Text),
    Index("deleted_by_name", "bucket", "key", "version_id"),
)

changes = Table(
    "changes",
    metadata,
    Column("number", _Id, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("data", _Text, nullable=False),  # JSON of the event
    sqlite_autoincrement=True,  # a number is never used again, even after pruning
)

registrations = Table(
    "registrations",
    metadata,
    Column("bucket", _Text, primary_key=True),
    Column("key", _Text, primary_key=True),  # "": the bucket is the whole location (op 8)
    Column("uri", _Text, nullable=False),
    Column("writable", SmallInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("mountpoint", _Text),  # of the file system that held it when it was registered
)
