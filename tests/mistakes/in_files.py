"""Mistakes in how files are written, whole or not at all."""

from mistakes.mutation import Mutation

FILES, WEIGHTS = "test_files.py", "test_weights.py"

MUTATIONS = [
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
    Mutation(
        "another model's tokenizer.json stays beside the new model",
        "weights/saving.py",
        "tokenizer is not None and name in OTHER_TOKENIZER_FILES",
        "tokenizer is not None and name == 'tokenizer.model'",
        (f"{WEIGHTS}::test_what_is_left_of_another_model_leaves",),
    ),
    Mutation(
        "a model without a tokenizer is given the one that lies there",
        "weights/saving.py",
        "if tokenizer is None and found is not None:",
        "if tokenizer is not None and found is None:",
        (f"{WEIGHTS}::test_another_models_tokenizer_is_not_taken_over",),
    ),
]
