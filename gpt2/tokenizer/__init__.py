"""Turn text into token ids and back.

`bpe` is byte-pair encoding, learned and applied; `tokenizer` puts it to use,
fast; `files` reads every kind of file that a vocabulary comes in.
"""
