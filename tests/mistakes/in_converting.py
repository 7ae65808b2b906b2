"""Mistakes in what `gpt2 convert` writes for other programs."""

from __future__ import annotations

from mistakes.mutation import Mutation

CONVERT = "test_convert.py"

MUTATIONS = [
    Mutation(
        "GGUF's linear maps are [in, out]",
        "weights/gguf_writing.py",
        "yield name, tensor.T",
        "yield name, tensor",
        (f"{CONVERT}::test_gguf_has_every_number",),
    ),
    Mutation(
        "the positions in GGUF are quantized",
        "weights/gguf_writing.py",
        'return kind if tensor.dim() == 2 and name != _POSITIONS else "f32"',
        'return kind if tensor.dim() == 2 else "f32"',
        (f"{CONVERT}::test_gguf_has_every_number",),
    ),
    Mutation(
        "rows without a token stay in GGUF",
        "weights/gguf_writing.py",
        "yield name, tensor[:n_rows]",
        "yield name, tensor",
        (f"{CONVERT}::test_gguf_has_every_number",),
    ),
    Mutation(
        "numbers too large for GGUF's type become infinite",
        "weights/gguf_writing.py",
        "if not largest.isfinite():",
        "if largest.isnan():",
        (f"{CONVERT}::test_gguf_refuses_a_number_too_large_for_the_type",),
    ),
    Mutation(
        "GGUF does not say that a token begins a text",
        "weights/gguf_vocabulary.py",
        '"bos": before == bos',
        '"bos": False',
        (f"{CONVERT}::test_gguf_of_a_tokenizer_that_begins_texts",),
    ),
    Mutation(
        "special tokens of GGUF are ordinary ones",
        "weights/gguf_vocabulary.py",
        "entries.append((i, name, _CONTROL))",
        "entries.append((i, name, _NORMAL))",
        (f"{CONVERT}::test_ggufs_values_are_those_of_llama_cpps_converter",),
    ),
    Mutation(
        "GGUF is written of an activation that llama.cpp does not have",
        "weights/gguf_writing.py",
        'if config.activation != "gelu_new":',
        'if config.activation == "relu":',
        (f"{CONVERT}::test_gguf_refuses_a_model_by_name",),
    ),
    Mutation(
        "nanoGPT's file has linear maps as [in, out]",
        "weights/nanogpt_writing.py",
        "tensor.T.contiguous() if name.endswith(LINEAR) else tensor",
        "tensor",
        (f"{CONVERT}::test_nanogpts_file",),
    ),
    Mutation(
        "nanoGPT's file does not name another activation",
        "weights/nanogpt_writing.py",
        '{"activation_function": config.activation}',
        "{}",
        (f"{CONVERT}::test_nanogpts_file",),
    ),
    Mutation(
        "nanoGPT's file is written in place",
        "weights/nanogpt_writing.py",
        "torch.save(content, stage / path.name)",
        "torch.save(content, path)",
        (f"{CONVERT}::test_a_full_disk_leaves_the_old_file",),
    ),
    Mutation(
        "digits that are split off are not in GGUF",
        "weights/gguf_vocabulary.py",
        "_DIGITS if self.splits_digits else _GPT2",
        "_GPT2",
        (f"{CONVERT}::test_gguf_of_a_tokenizer_with_settings",),
    ),
    Mutation(
        "GGUF is written of a tokenizer that normalizes",
        "weights/gguf_vocabulary.py",
        "if any(changes.values()):",
        'if changes.get("digits"):',
        (f"{CONVERT}::test_gguf_refuses_settings_by_name",),
    ),
    Mutation(
        "added words that overlap are not refused",
        "weights/gguf_vocabulary.py",
        "if longer and not plain:",
        "if not longer and not plain:",
        (f"{CONVERT}::test_gguf_refuses_settings_by_name",),
    ),
]
