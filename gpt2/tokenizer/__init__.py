"""Encode text as token ids and decode ids.

`bpe` learns and applies byte-pair encoding; `tokenizer` has the `Tokenizer`,
which does it fast; `files` reads vocabularies from every common file format.
"""
