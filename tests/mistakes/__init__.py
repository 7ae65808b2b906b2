"""Mistakes that one could make in the package; see `mutations.py`."""

from mistakes import (
    in_attention,
    in_converting,
    in_files,
    in_measuring,
    in_packed_models,
    in_reading,
    in_sampling,
    in_the_model,
    in_the_tokenizer,
    in_training,
)

MUTATIONS = [
    *in_attention.MUTATIONS,
    *in_the_model.MUTATIONS,
    *in_sampling.MUTATIONS,
    *in_training.MUTATIONS,
    *in_measuring.MUTATIONS,
    *in_the_tokenizer.MUTATIONS,
    *in_reading.MUTATIONS,
    *in_files.MUTATIONS,
    *in_converting.MUTATIONS,
    *in_packed_models.MUTATIONS,
]
