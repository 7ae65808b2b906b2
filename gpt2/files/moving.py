"""Move files from the stage to their folder, in one step where possible.

- A single changed file is renamed over the old one.
- For several, the folder is exchanged for a new one (`files.exchanging`).
- Where that is impossible, the old files are moved out of the folder one by
  one, and then the new ones in. Meanwhile the folder contains `.half-saved`,
  which makes readers refuse it. If the process is killed, the next save
  finishes its work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt2.files.exchanging import exchange
from gpt2.files.place import Place, flush
from gpt2.files.reading import field, read_json_object


def move_in(
    place: Place, leaves: Callable[[str], bool], first: Sequence[str]
) -> None:
    """Move the files of the stage to their folder.

    Args:
        place: The folder; it is locked.
        leaves: As for `gpt2.files.writing.replacing`.
        first: As for `gpt2.files.writing.replacing`.

    Raises:
        OSError: They cannot be moved. Nothing has changed, unless the message
            says so.
    """
    folder, stage = place.folder, place.work / "new"
    new = sorted(path.name for path in stage.iterdir())
    changed = [n for n in new if not _equal(stage / n, folder / n)]
    gone = [
        entry.name
        for entry in os.scandir(folder)
        if entry.name not in new
        and not entry.name.endswith(".saving.lock")
        and not entry.is_dir(follow_symlinks=False)
        and leaves(entry.name)
    ]
    if len(changed) + len(gone) < 2:
        for name in changed:
            (stage / name).replace(folder / name)
        for name in gone:
            (folder / name).unlink()
    elif place.name or not exchange(place, changed, gone):
        moving = [n for n in new if n in changed or n in first]
        _move_one_by_one(place, moving, gone, first)


def _equal(new: Path, old: Path) -> bool:
    """Compare two files byte by byte; the old one may be missing."""
    if old.is_dir():
        raise IsADirectoryError(f"{old} is a folder, and not a file")
    if not old.is_file() or new.stat().st_size != old.stat().st_size:
        return False
    with new.open("rb") as one, old.open("rb") as other:
        while block := one.read(1 << 20):
            if block != other.read(1 << 20):
                return False
    return True


def _move_one_by_one(
    place: Place, new: Sequence[str], gone: Sequence[str], first: Sequence[str]
) -> None:
    """Move the old files out of the folder, and then the new ones in."""

    def rank(name: str) -> int:
        return first.index(name) if name in first else len(first)

    folder, work = place.folder, place.work
    old = [n for n in (*new, *gone) if os.path.lexists(folder / n)]
    plan = {
        "out": sorted(old, key=rank),
        "in": sorted(new, key=rank, reverse=True),
    }
    with (work / "plan.json").open("w", encoding="utf-8") as file:
        json.dump(plan, file)
        file.flush()
        os.fsync(file.fileno())
    (work / "old").mkdir()
    flush(work)
    work.rename(place.marker)
    try:
        finish(place)
    except BaseException as problem:
        try:
            _roll_back(place, plan)
        except OSError as error:
            raise OSError(
                f"{folder} is half saved: a file could neither be moved "
                f"({problem}) nor moved back ({error}). The files are in "
                f"{place.marker / 'old'} and {place.marker / 'new'}"
            ) from problem
        raise


def finish(place: Place) -> None:
    """Move the files that the plan lists and that have not been moved yet.

    Raises:
        OSError: One cannot be moved.
        ValueError: The plan is missing or damaged.
    """
    folder, marker = place.folder, place.marker
    try:
        names = _read_plan(marker)
    except ValueError as problem:
        raise ValueError(
            f"{problem}. {marker} means that a save to {folder} was "
            f"interrupted; without its plan it cannot be finished. Look into "
            f"it, move out what you need, and remove it"
        ) from problem
    flush(folder)
    for name in names["out"]:
        aside = marker / "old" / name
        if not os.path.lexists(aside) and os.path.lexists(folder / name):
            (folder / name).rename(aside)
    flush(marker / "old")
    flush(folder)
    for name in names["in"]:
        if os.path.lexists(marker / "new" / name):
            (marker / "new" / name).replace(folder / name)
    flush(folder)
    marker.rename(place.work)


def _read_plan(marker: Path) -> dict[str, list[str]]:
    """Read which files to move out and in."""
    path = marker / "plan.json"
    if marker.is_symlink():
        raise ValueError(f"{marker} is a link, and not a folder")
    plan = read_json_object(path, ValueError)
    names = {}
    for way in ("out", "in"):
        names[way] = field(plan, way, list, path, ValueError)
        for name in names[way]:
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(
                    f"{path} lists {name!r:.80}, which is not a file name"
                )
    return names


def _roll_back(place: Place, plan: dict[str, list[str]]) -> None:
    """Undo what `finish` has done so far."""
    folder, new = place.folder, place.marker / "new"
    for name in plan["in"]:
        if not os.path.lexists(new / name):
            (folder / name).replace(new / name)
    for name in reversed(plan["out"]):
        if os.path.lexists(place.marker / "old" / name):
            (place.marker / "old" / name).replace(folder / name)
    flush(folder)
    place.marker.rename(place.work)
