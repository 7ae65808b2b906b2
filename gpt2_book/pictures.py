"""SVG for the page: small, the same in every run, and comparable.

Matplotlib writes more than a page needs: names for every group, fonts for
every text, six decimals. `plain` keeps what can be seen. `look_the_same` says
whether two pictures differ by rounding only, as they do on two processors.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
FONTS = "-apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
SHARED = ("fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width")
NUMBER = re.compile(r"-?\d*\.?\d+(?:e[-+]?\d+)?")
COLOR = re.compile(r"#[0-9a-f]{6}")
REFERENCE = re.compile(r"(?:url\()?#(\w+)\)?")
SUPERSCRIPTS = str.maketrans("0123456789\N{MINUS SIGN}", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
# Rounding on another processor moves a point by less than this (in points),
# and changes a channel of a colour by no more than this.
MOVED, TINTED = 0.1, 4

ET.register_namespace("", SVG[1:-1])
ET.register_namespace("xlink", LINK[1:-1])


def plain(text: str) -> str:
    """Return a picture of matplotlib without what nobody sees.

    Args:
        text: An SVG file, written with `svg.fonttype` "none".
    """
    root = ET.fromstring(text)
    for part in root.findall(f"{SVG}metadata"):
        root.remove(part)
    for part in root.findall(f"{SVG}defs[{SVG}style]"):
        root.remove(part)
    for element in root.iter():
        _use_attributes(element)
    _name_in_order(root)
    for text_of_tspans in root.iter(f"{SVG}text"):
        _join(text_of_tspans)
    _unwrap(root)
    for group in root.iter(f"{SVG}g"):
        _share(group)
    root.attrib |= {"font-family": FONTS, "stroke-linejoin": "round"}
    ET.indent(root, space="")
    return ET.tostring(root, encoding="unicode") + "\n"


def _use_attributes(element: ET.Element) -> None:
    """Turn the style of an element into attributes, and round numbers."""
    style = element.attrib.pop("style", "")
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font-family":
            value = "monospace" if "Mono" in value else ""
        if name.startswith("image-rendering"):
            name, value = "style", "image-rendering: pixelated"
        if value:
            element.set(name, value.removesuffix("px"))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name, value in element.items():
        if name == "d":
            value = re.sub(r" ?([a-zA-Z]) ?", r"\1", " ".join(value.split()))
        if name not in {"id", f"{LINK}href"} and "#" not in value:
            element.set(name, NUMBER.sub(_rounded, value))


def _rounded(number: re.Match[str]) -> str:
    return f"{round(float(number[0]), 2) + 0.0:.12g}"


def _name_in_order(root: ET.Element) -> None:
    """Drop the names to which nothing refers, and number the others.

    Matplotlib makes them from the coordinates, the last digits of which are
    not the same everywhere.
    """
    names: dict[str, str] = {}
    for element in root.iter():
        for key, value in element.items():
            match = REFERENCE.fullmatch(value)
            if match and key != "id" and not COLOR.fullmatch(value):
                new = names.setdefault(match[1], f"n{len(names)}")
                element.set(key, value.replace(match[1], new))
    for element in root.iter():
        if (name := element.attrib.pop("id", "")) in names:
            element.set("id", names[name])


def _join(text: ET.Element) -> None:
    """Make one text of a formula's signs, and keep the spaces at its ends."""
    signs = list(text)
    if signs:
        size = max(float(sign.get("font-size", 0)) for sign in signs)
        for sign in signs:
            character = sign.text or ""
            if float(sign.get("font-size", 0)) < size:
                character = character.translate(SUPERSCRIPTS)
            text.text = (text.text or "").strip() + character
            text.remove(sign)
        text.attrib |= {k: signs[0].get(k, "") for k in ("x", "y")}
        text.set("font-size", f"{size:g}")
    text.text = re.sub(
        "^ | $| (?= )|(?<= ) ", "\N{NO-BREAK SPACE}", text.text or ""
    )


def _unwrap(element: ET.Element) -> None:
    """Replace the groups that say nothing by what is in them."""
    children: list[ET.Element] = []
    for child in list(element):
        _unwrap(child)
        element.remove(child)
        idle = child.tag == f"{SVG}g" and (not child.attrib or not len(child))
        children += list(child) if idle else [child]
    element.extend(children)


def _share(group: ET.Element) -> None:
    """Say once for a group what all in it have in common."""
    first, *rest = group
    for name in SHARED:
        value = first.get(name)
        if value and all(child.get(name) == value for child in rest):
            group.set(name, value)
            for child in group:
                del child.attrib[name]


def look_the_same(one: str, other: str) -> bool:
    """Return whether two pictures, in SVG, differ by rounding only."""
    pair = [list(ET.fromstring(picture).iter()) for picture in (one, other)]
    return len(pair[0]) == len(pair[1]) and all(
        a.tag == b.tag
        and (a.text or "").strip() == (b.text or "").strip()
        and a.keys() == b.keys()
        and all(_alike(a.attrib[key], b.attrib[key]) for key in a.attrib)
        for a, b in zip(*pair, strict=True)
    )


def _alike(one: str, other: str) -> bool:
    """Compare two values of an attribute."""
    if one == other:
        return True
    if one.startswith("data:image/png;base64,"):
        a, b = (_pixels(value) for value in (one, other))
        return a.shape == b.shape and bool(np.abs(a - b).max() <= TINTED)
    if COLOR.fullmatch(one) and COLOR.fullmatch(other):
        a, b = (np.array([*bytes.fromhex(c[1:])], int) for c in (one, other))
        return bool(np.abs(a - b).max() <= TINTED)
    if NUMBER.sub("0", one) != NUMBER.sub("0", other):
        return False
    return all(
        abs(a - b) < MOVED
        for a, b in zip(*map(_numbers, (one, other)), strict=True)
    )


def _numbers(value: str) -> Iterator[float]:
    return (float(number) for number in NUMBER.findall(value))


def _pixels(address: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    file = io.BytesIO(base64.b64decode(address.partition(",")[2]))
    return np.array(Image.open(file).convert("RGBA"), int)
