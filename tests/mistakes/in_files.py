"""Mistakes in writing files atomically."""

from mistakes.mutation import Mutation

FILES, WEIGHTS = "test_files.py", "test_weights.py"
KILLED = (
    f"{FILES}::test_a_save_killed_at_any_moment_leaves_the_old_model"
    "_or_the_new"
)

MUTATIONS = [
    Mutation(
        "two processes can hold a lock",
        "files/lock.py",
        "        lock.acquire()\n",
        "        pass\n",
        (KILLED,),
    ),
    Mutation(
        "a checksum is not compared",
        "files/checksums.py",
        "if found != expected:",
        "if len(found) != len(expected):",
        (f"{FILES}::test_a_flipped_bit_is_caught_in_any_byte",),
    ),
    Mutation(
        "the config arrives before the weights, and leaves after them",
        "files/moving.py",
        "return first.index(name) if name in first else len(first)",
        "return -first.index(name) if name in first else -len(first)",
        (KILLED,),
    ),
    Mutation(
        "a half-saved folder is read",
        "files/whole.py",
        "    if os.path.lexists(marker):\n        raise",
        "    if not marker:\n        raise",
        (KILLED,),
    ),
    Mutation(
        "files that others add during an exchange are lost",
        "files/exchanging.py",
        "path.replace(folder / path.name)",
        "path.unlink()",
        (f"{FILES}::test_files_that_others_add_meanwhile_stay",),
    ),
    Mutation(
        "a failed move is not rolled back",
        "files/moving.py",
        "            _roll_back(place, plan)\n",
        "            place.marker.rename(place.work)\n",
        (f"{FILES}::test_a_failure_at_any_step_changes_nothing",),
    ),
    Mutation(
        "a checkpoint that is saved while it is inspected is not read again",
        "weights/inspecting.py",
        "return read_consistently(source, read)",
        "return read()",
        (f"{FILES}::test_a_save_while_inspecting_is_not_mixed",),
    ),
    Mutation(
        "another model's tokenizer.json is left beside the new model",
        "weights/saving.py",
        "tokenizer is not None and name in OTHER_TOKENIZER_FILES",
        "tokenizer is not None and name == 'tokenizer.model'",
        (f"{WEIGHTS}::test_files_of_another_model_are_removed",),
    ),
    Mutation(
        "a model saved without a tokenizer gets the folder's",
        "weights/saving.py",
        "if tokenizer is None and found is not None:",
        "if tokenizer is not None and found is None:",
        (f"{WEIGHTS}::test_another_models_tokenizer_is_not_taken_over",),
    ),
]
