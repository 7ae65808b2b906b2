"""Reading files: what is accepted, and how errors name what is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2.files.reading import (
    MOST_DEPTH,
    MOST_DIGITS,
    field,
    is_there,
    map_file,
    open_file,
    parse_json,
    read_bytes,
    read_json,
    read_json_object,
)


class OurError(ValueError):
    """The exception that the caller passes."""


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES)
def test_json_is_parsed(value: Any) -> None:
    data = json.dumps(value).encode()
    assert parse_json(data, "name", OurError) == value


@settings(deadline=None)
@given(st.binary() | st.text('[]{}",:0-9eE+.ntf \\u\ufeff').map(str.encode))
def test_anything_else_is_refused_by_name(data: bytes) -> None:
    try:
        value = parse_json(data, "the name", OurError)
    except OurError as error:
        assert str(error).startswith("the name cannot be read: ")
    else:
        assert value == json.loads(data)


ODD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "Expecting value"),
    "not UTF-8": (b'"\xff"', "'utf-8' codec can't decode"),
    "UTF-16": ("{}".encode("utf-16"), "'utf-8' codec can't decode"),
    "a mark": (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM"),
    "a name twice": (
        b'{"b": 1, "a": 1, "b": 2}',
        "the name 'b' appears twice",
    ),
    "deep within": (
        b'[{"a": {"b": 1, "b": 1}}]',
        "the name 'b' appears twice",
    ),
    "no number": (b"[NaN]", "NaN is not a number in JSON"),
    "infinite": (b"[-Infinity]", "-Infinity is not a number in JSON"),
    "too large": (b"1e999", "the number 1e999 is too large"),
    "too long": (b"9" * 41, "a whole number has 41 digits, more than 40"),
    "far too long": (b"-" + b"9" * 10**6, "has 1,000,000 digits"),
    "too deep": (b"[" * 33 + b"1" + b"]" * 33, "nested more than 32 deep"),
    "too deep, mixed": (
        b'[{"a":' * 17 + b"1" + b"}]" * 17,
        "nested more than 32 deep",
    ),
    "far too deep": (b"[" * 10**6, "nested more than 32 deep"),
    "deep objects": (b'{"a":' * 10**5, "nested more than 32 deep"),
}


@pytest.mark.parametrize("fault", ODD)
def test_odd_json_is_refused(tmp_path: Path, fault: str) -> None:
    content, message = ODD[fault]
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(OurError) as caught:
        read_json(path, OurError)
    text = str(caught.value)
    assert text.startswith(f"{path} cannot be read: ")
    assert message in text
    assert len(text) < len(str(path)) + 200


def test_just_within_the_bounds(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" * MOST_DEPTH + "9" * MOST_DIGITS + "]" * MOST_DEPTH)
    value = read_json(path, OurError, most_bytes=path.stat().st_size)
    for _ in range(MOST_DEPTH):
        (value,) = value
    assert value == 10**MOST_DIGITS - 1
    with pytest.raises(OurError, match="has more than 103 bytes"):
        read_json(path, OurError, most_bytes=103)


@pytest.mark.parametrize(
    ("content", "shown"),
    [("[1]", "a list of 1"), ("5", "5"), ("null", "None"), ('"a"', "'a'")],
)
def test_only_an_object_is_accepted(
    tmp_path: Path, content: str, shown: str
) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(OurError) as caught:
        read_json_object(path, OurError)
    assert str(caught.value) == f"{path} must hold a JSON object, got {shown}"


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (True, int, "a whole number"),
        (1.0, int, "a whole number"),
        ("1", int, "a whole number"),
        (None, int, "a whole number"),
        ([1], int, "a whole number"),
        (True, (int, float), "a whole number or a number"),
        (1, bool, "true or false"),
        ({}, list, "a list"),
        ([], dict, "an object"),
        (0, str, "a string"),
    ],
)
def test_a_field_of_another_type(value: Any, kind: Any, expected: str) -> None:
    with pytest.raises(
        OurError, match=f"^file: field 'x' must be {expected}, "
    ):
        field({"x": value}, "x", kind, "file", OurError)


def test_a_field_of_its_type_and_a_missing_one() -> None:
    for value, kind in ((1, int), (True, bool), ("", str), (None, type(None))):
        assert field({"x": value}, "x", kind, "file", OurError) is value
    with pytest.raises(OurError, match=r"^file has no field 'y'$"):
        field({"x": 1}, "y", int, "file", OurError)
    with pytest.raises(OurError) as caught:
        field({"x": "y" * 10**6}, "x", int, "file", OurError)
    assert len(str(caught.value)) < 120


READERS: list[Callable[[Path], object]] = [
    lambda path: open_file(path, OurError),
    lambda path: read_bytes(path, OurError, 10),
    lambda path: map_file(path, OurError),
    lambda path: read_json(path, OurError),
]


@pytest.mark.parametrize("read", READERS)
def test_what_is_not_a_file(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    for path, message in (
        (tmp_path, "it is a folder, not a regular file"),
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path / "nul\0", "null"),
    ):
        with pytest.raises(OurError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path} cannot be read: ")
        assert message in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")
@pytest.mark.parametrize("read", READERS)
def test_pipes_and_devices(
    tmp_path: Path,
    make_pipe: Callable[[Path], None],
    read: Callable[[Path], object],
) -> None:
    make_pipe(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a named pipe"), ("link", "a device")):
        with pytest.raises(OurError, match=f"{name} cannot .* it is {kind}, "):
            read(tmp_path / name)


def test_reads_and_maps_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"0123456789"):
        path.write_bytes(content)
        assert read_bytes(path, OurError, 10) == content
        assert map_file(path, OurError) == content
    mapped = map_file(path, OurError)
    mapped[0] = 65
    assert path.read_bytes() == b"0123456789"
    with pytest.raises(OurError, match="has more than 9 bytes, too many"):
        read_bytes(path, OurError, 9)


def test_is_there(tmp_path: Path) -> None:
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "missing")
    assert is_there(tmp_path / ("a" * 5000))  # opening it raises the error
