"""Mistakes in how files are read and written."""

from mistakes.mutation import Mutation

FILES = "test_files.py"

MUTATIONS = [
    # Files.
    Mutation(
        "two may hold a lock",
        "files/lock.py",
        "        lock.acquire()\n",
        "        pass\n",
        (FILES,),
    ),
    Mutation(
        "a checksum is not compared",
        "files/checksums.py",
        "if found != expected:",
        "if len(found) != len(expected):",
        (FILES,),
    ),
    Mutation(
        "the config comes before the weights, and leaves after them",
        "files/moving.py",
        "return first.index(name) if name in first else len(first)",
        "return -first.index(name) if name in first else -len(first)",
        (FILES,),
    ),
    Mutation(
        "a folder that is half saved is taken for whole",
        "files/writing.py",
        "    if os.path.lexists(marker):\n        raise",
        "    if not marker:\n        raise",
        (FILES,),
    ),
    Mutation(
        "what others put into a folder while it is exchanged is lost",
        "files/moving.py",
        "path.replace(folder / path.name)",
        "path.unlink()",
        (FILES,),
    ),
    Mutation(
        "a failed move is not taken back",
        "files/moving.py",
        "            _take_back(place, plan)\n",
        "            place.marker.rename(place.work)\n",
        (FILES,),
    ),
]
