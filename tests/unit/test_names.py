"""Names in the mount: reversible for every name, and foreign keys show as they are."""

import contextlib
import errno
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from filesfs.errors import FileSystemError
from filesfs.escape import NAME_MAX
from filesfs.state.names import (
    NamePolicy,
    all_from_wire,
    bucket_from_wire,
    bucket_to_wire,
    from_wire,
    to_wire,
)

_BYTE = st.integers(1, 255).filter(lambda byte: byte != ord("/"))
# Names near the escape's own alphabet find the corners; arbitrary bytes the rest.
names = st.one_of(
    st.lists(_BYTE, min_size=1, max_size=NAME_MAX).map(bytes),
    st.text("_-5f.ad20 ", min_size=1, max_size=40).map(str.encode),
    st.text("_-5fa2", max_size=12).map(lambda tail: b"_-" + tail.encode()),
).filter(lambda name: name not in (b".", b".."))
segments = st.one_of(
    st.text("abcXYZ019_-.", min_size=1, max_size=300),
    st.text("_-5fa207", max_size=40).map("_-".__add__),
)


@given(st.lists(st.one_of(segments, st.text("a._-\n\u00e9", max_size=4))))
@example([])
@example([""])
@example(["a\nb"])
@example(["a", "\n"])
@example(["x" * 255, ".x", "..x", "_", "__init__.py"])
def test_many_names_at_once_are_the_same_as_one_by_one(wire: list[str]) -> None:
    for policy in NamePolicy:
        assert all_from_wire(wire, policy) == [from_wire(segment, policy) for segment in wire]


@given(names)
@example(b"_-_20")
@example(b"_-a")
@example(b"_-_5f-_20")
@example(b"\xff" * 255)
@example(b"_" * 255)
def test_every_name_comes_back(name: bytes) -> None:
    wire = to_wire(name)
    assert from_wire(wire) == name
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,1024}", wire)
    assert wire not in (".", "..")


@given(names, names)
def test_two_names_are_two_keys(one: bytes, other: bytes) -> None:
    assume(one != other)
    assert to_wire(one) != to_wire(other)


@given(segments)
def test_a_key_that_is_shown_is_reached_by_that_name(segment: str) -> None:
    name = from_wire(segment)
    if name is None:
        assert len(segment) > NAME_MAX or segment in (".", "..")
    else:
        assert 0 < len(name) <= NAME_MAX
        assert to_wire(name) == segment


@given(st.text("abcXYZ019_-.", min_size=1, max_size=NAME_MAX))
def test_foreign_keys_show_as_they_are(segment: str) -> None:
    assume(not segment.startswith("_-") and segment not in (".", ".."))
    assert from_wire(segment) == segment.encode()
    assert to_wire(segment.encode()) == segment


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        (b"plain-name_1.txt", "plain-name_1.txt"),
        (b"my file.txt", "_-my_20file.txt"),
        ("Übung".encode(), "_-_c3_9cbung"),
        (b"a_b c", "_-a_5fb_20c"),
        (b"file~", "_-file_7e"),
        (b".#lock", "_-._23lock"),
        (b"_-a_20b", "_-_5f-a_5f20b"),  # reads as the escape of "a b"
        (b"_-a", "_-a"),  # no escape would be written like this
        (b"_-a_61", "_-a_61"),
        (b"_-_2f", "_-_2f"),  # decodes to a slash: nobody's name
        (b"_-_5F-", "_-_5F-"),  # upper case is not ours
        (b"_-", "_-"),
        (b"...", "..."),
    ],
)
def test_examples(name: bytes, wire: str) -> None:
    assert to_wire(name) == wire
    assert from_wire(wire) == name


@pytest.mark.parametrize("segment", ["", ".", "..", "a b", "ü", "a" * 256, "a/b"])
def test_keys_that_no_name_leads_to_are_not_shown(segment: str) -> None:
    assert from_wire(segment) is None


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_what_is_no_name_is_refused(name: bytes) -> None:
    with pytest.raises(FileSystemError) as caught:
        to_wire(name)
    assert caught.value.code == errno.EINVAL


@pytest.mark.parametrize("convert", [to_wire, bucket_to_wire])
def test_a_name_has_at_most_255_bytes(convert) -> None:
    assert convert(b"a" * 255) == "a" * 255
    with pytest.raises(FileSystemError) as caught:
        convert(b"a" * 256)
    assert caught.value.code == errno.ENAMETOOLONG


def test_strict_refuses_and_never_escapes() -> None:
    with pytest.raises(FileSystemError, match="names=escape") as caught:
        to_wire(b"my file", NamePolicy.STRICT)
    assert caught.value.code == errno.EINVAL
    assert to_wire(b"_-a_20b", NamePolicy.STRICT) == "_-a_20b"
    assert from_wire("_-a_20b", NamePolicy.STRICT) == b"_-a_20b"
    with pytest.raises(FileSystemError):
        bucket_to_wire(b"my.bucket", NamePolicy.STRICT)


@given(names)
def test_every_bucket_name_comes_back_or_is_too_long(name: bytes) -> None:
    if len(name) > 84:  # 2 + 3 * 84 always fits
        with contextlib.suppress(FileSystemError):
            assert bucket_from_wire(bucket_to_wire(name)) == name
        return
    bucket = bucket_to_wire(name)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,255}", bucket)
    assert bucket_from_wire(bucket) == name


@given(st.text("ab09_-2e", min_size=1, max_size=NAME_MAX))
def test_every_bucket_is_shown_and_reached(bucket: str) -> None:
    name = bucket_from_wire(bucket)
    assert name is not None
    assert bucket_to_wire(name) == bucket


def test_a_dot_in_a_bucket_is_escaped() -> None:
    assert bucket_to_wire(b"my.bucket") == "_-my_2ebucket"
    assert bucket_from_wire("_-my_2ebucket") == b"my.bucket"
    assert bucket_from_wire("my.bucket") is None
