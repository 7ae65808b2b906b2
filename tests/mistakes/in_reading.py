"""Mistakes in reading files, and in refusing bad ones."""

from mistakes.mutation import Mutation

CONFIG, HUB = "test_config.py", "test_hub.py"
JSON, PYTORCH = "test_reading.py", "test_pytorch_files.py"
OTHERS = "test_other_checkpoints.py"
TENSORFLOW = "test_tensorflow_checkpoint.py"
WEIGHTS = "test_weights.py"

MUTATIONS = [
    # The config.
    Mutation(
        "n_ctx is read before n_positions",
        "config.py",
        '("n_positions", "n_ctx")',
        '("n_ctx", "n_positions")',
        (CONFIG,),
    ),
    Mutation(
        "another scaling of attention is accepted",
        "config.py",
        '"scale_attn_by_inverse_layer_idx": False,',
        "",
        (CONFIG,),
    ),
    # Any file, and JSON.
    Mutation(
        "a repeated name in JSON is accepted",
        "files/reading.py",
        "if len(fields) < len(pairs):",
        "if False:",
        (f"{JSON}::test_odd_json_is_refused",),
    ),
    Mutation(
        "pipes and devices are read",
        "files/reading.py",
        "if stat.S_ISREG(mode):",
        "if not stat.S_ISDIR(mode):",
        (f"{JSON}::test_pipes_and_devices",),
    ),
    Mutation(
        "a boolean is accepted as an integer",
        "files/reading.py",
        "isinstance(value, bool) and bool not in kinds",
        "False",
        (f"{JSON}::test_a_field_of_another_type",),
    ),
    # Files of PyTorch.
    Mutation(
        "a storage shorter than its tensor is accepted",
        "weights/pytorch.py",
        "if (found := record.end - record.begin) != expected:",
        "if (found := record.end - record.begin) > expected:",
        (f"{PYTORCH}::test_a_record_of_another_size_than_its_storage",),
    ),
    Mutation(
        "an archive's checksums are not compared",
        "weights/archive.py",
        "if found != self.crc32:",
        "if False:",
        (f"{PYTORCH}::test_no_flipped_bit_is_loaded",),
    ),
    Mutation(
        "two records of an archive may overlap",
        "weights/archive.py",
        "if places[name] < free or records[name].end > begin:",
        "if records[name].end > begin:",
        (f"{PYTORCH}::test_damaged_archives",),
    ),
    Mutation(
        "keys in a pickle may be numbers",
        "weights/pickle_program.py",
        "if type(name) is not str:",
        "if type(name) not in (str, int):",
        (f"{PYTORCH}::test_odd_pickles",),
    ),
    Mutation(
        "a tensor may exceed its storage by one number",
        "weights/pickle_objects.py",
        "if needed > storage.n_numbers:",
        "if needed > storage.n_numbers + 1:",
        (f"{PYTORCH}::test_odd_pickles",),
    ),
    Mutation(
        "a model may take far more memory than its file",
        "weights/formats.py",
        "if needed > most:",
        "if needed > 99 * most:",
        (f"{PYTORCH}::test_a_model_takes_little_more_memory_than_its_file",),
    ),
    # Files of safetensors and of TensorFlow.
    Mutation(
        "a gap between two tensors is accepted",
        "weights/safetensors_header.py",
        "if begin != free:",
        "if begin < free:",
        (f"{WEIGHTS}::test_agrees_with_the_library",),
    ),
    Mutation(
        "a tensor may have more bytes than its shape needs",
        "weights/safetensors_header.py",
        "prod(shape) * DTYPE_BYTES[dtype]) != end - begin:",
        "prod(shape) * DTYPE_BYTES[dtype]) > end - begin:",
        (f"{WEIGHTS}::test_wrong_entries_of_the_header",),
    ),
    Mutation(
        "the checksums of TensorFlow's tensors are not compared",
        "weights/tensorflow.py",
        'expect(came == stored, f"CRC',
        'expect(True, f"CRC',
        (f"{TENSORFLOW}::test_checksums_of_any_length",),
    ),
    Mutation(
        "the checksums of TensorFlow's index are not compared",
        "weights/sorted_table.py",
        'expect(came == stored, f"{block}',
        'expect(True, f"{block}',
        (f"{TENSORFLOW}::test_hostile_indexes",),
    ),
    Mutation(
        "every tensor is read from the first data file",
        "weights/tensorflow.py",
        ".data-{shard:05d}-of-",
        ".data-{0:05d}-of-",
        (f"{TENSORFLOW}::test_several_data_files",),
    ),
    # Which tensor is which.
    Mutation(
        "names that begin with transformer. are unknown",
        "weights/layout.py",
        'name.removeprefix("transformer.")',
        'name.removeprefix("gpt2.")',
        (f"{WEIGHTS}::test_reads_every_kind",),
    ),
    Mutation(
        "the embeddings of tokens and of positions are swapped",
        "weights/layout.py",
        """\
        "wte.weight": (config.n_vocab, width),
        "wpe.weight": (config.n_ctx, width),
""",
        """\
        "wpe.weight": (config.n_vocab, width),
        "wte.weight": (config.n_ctx, width),
""",
        (f"{WEIGHTS}::test_parameter_shapes_are_those_of_the_model",),
    ),
    # Loading.
    Mutation(
        "a model is loaded before its checksums are compared",
        "weights/loading.py",
        "    weights.verify()\n",
        "",
        (f"{PYTORCH}::test_no_flipped_bit_is_loaded",),
    ),
    Mutation(
        "an output that is not the token embedding is dropped",
        "weights/loading.py",
        '_check_tied(weights, names.pop(OUTPUT), names["wte.weight"])',
        "names.pop(OUTPUT)",
        (f"{WEIGHTS}::test_wrong_tensors",),
    ),
    Mutation(
        "infinite weights are loaded",
        "weights/loading.py",
        "if not piece.sum().isfinite() and",
        "if piece.sum().isnan() and",
        (f"{WEIGHTS}::test_wrong_tensors",),
    ),
    Mutation(
        "only the first piece of a tensor is checked",
        "weights/loading.py",
        "for piece in weights.read(name).view(-1).split(_PIECE):",
        "for piece in weights.read(name).view(-1).split(_PIECE)[:1]:",
        (f"{WEIGHTS}::test_every_piece_of_a_tensor_is_checked",),
    ),
    Mutation(
        "weights whose sum overflows are refused",
        "weights/loading.py",
        "if not piece.sum().isfinite() and not piece.isfinite().all():",
        "if not piece.sum().isfinite():",
        (f"{WEIGHTS}::test_a_sum_that_overflows_is_no_damage",),
    ),
    Mutation(
        "the pages of a file that was checked stay in memory",
        "weights/loading.py",
        "                )\n            weights.release(name)\n",
        "                )\n",
        (
            f"{WEIGHTS}::test_weights_are_never_held_twice"
            "[float32-int8-28-safetensors]",
        ),
    ),
    # Files of other programs.
    Mutation(
        "square matrices of nn.Linear are not transposed",
        "weights/arrangement.py",
        "elif transposed and ours.endswith(LINEAR):",
        "elif transposed and len(shape) == 2 and len(set(shape)) == 2 and (\n"
        "            ours.endswith(LINEAR)\n"
        "        ):",
        (f"{OTHERS}::test_transposed_weights_beside_a_config",),
    ),
    Mutation(
        "nanoGPT's activation is the tanh form",
        "weights/containers.py",
        '"gelu" if exact else',
        '"gelu_new" if exact else',
        (f"{OTHERS}::test_nanogpt",),
    ),
    Mutation(
        "biases that any file lacks are zero",
        "weights/arrangement.py",
        "    if not is_transposed(names, infos):\n        return",
        "    if False:\n        return",
        (f"{OTHERS}::test_biases_are_zero_in_nanogpts_world_alone",),
    ),
    Mutation(
        "a prefix is taken off one of several models",
        "weights/layout.py",
        "if len(prefixes := find_prefixes(infos)) > 1:",
        "if len(prefixes := find_prefixes(infos)) > 2:",
        (f"{OTHERS}::test_two_models_in_one_file",),
    ),
    Mutation(
        "a name in a pickle that is unknown may be kept",
        "weights/pickle_program.py",
        "if isinstance(last, ClassName) and instruction not in _OF_A_CLASS:",
        "if False:",
        (f"{OTHERS}::test_an_unknown_name_can_only_describe_an_object",),
    ),
    Mutation(
        "llm.c's rows of padding are tokens",
        "weights/llm_c.py",
        'shapes["wte.weight"] = (n_vocab, width)',
        'shapes["wte.weight"] = (n_rows, width)',
        (f"{OTHERS}::test_llm_c",),
    ),
    Mutation(
        "bytes behind the last tensor of llm.c are passed over",
        "weights/llm_c.py",
        "if expected != len(data):",
        "if expected > len(data):",
        (f"{OTHERS}::test_wrong_headers",),
    ),
    Mutation(
        "an adapter beside the weights is passed over",
        "weights/locating.py",
        "weights = None if adapted else find_weights(folder)",
        "weights = find_weights(folder)",
        (f"{OTHERS}::test_an_adapter_beside_weights",),
    ),
    Mutation(
        "dtypes of a mixed file are rounded to the narrowest",
        "weights/arrangement.py",
        'if len(found) == 1 else "float32"',
        'if len(found) == 1 else "bfloat16"',
        (f"{OTHERS}::test_mixed_dtypes",),
    ),
    Mutation(
        "the first token without a row is encoded",
        "weights/unresized.py",
        "if token_id >= self.n_rows:",
        "if token_id > self.n_rows:",
        (f"{OTHERS}::test_a_token_without_a_row_is_refused_alone",),
    ),
    # Files whose content is known.
    Mutation(
        "a cached digest is matched by the file's size alone",
        "weights/digests.py",
        "[info.st_size, info.st_mtime_ns, info.st_ctime_ns]",
        "[info.st_size]",
        (f"{HUB}::test_caches_the_digest_of_an_unchanged_file",),
    ),
    Mutation(
        "a preset accepts files without a known digest",
        "weights/pins.py",
        "if expected is None:\n",
        "if expected is None:\n            continue\n",
        (f"{HUB}::test_each_pinned_file_is_compared",),
    ),
    Mutation(
        "a preset's files on this disk are not compared with their digests",
        "weights/pins.py",
        "if (found := sha256(path, expected)) != expected:",
        "if not (found := sha256(path, expected)):",
        (f"{HUB}::test_each_pinned_file_is_compared",),
    ),
    Mutation(
        "downloads are not compared with their digests",
        "weights/hub.py",
        "if (found := sha256(path, expected)) != expected:",
        "if not (found := sha256(path, expected)):",
        (f"{HUB}::test_pinned_content",),
    ),
]
