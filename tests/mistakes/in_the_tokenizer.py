"""Mistakes in the tokenizer and in reading its vocabulary."""

from mistakes.mutation import Mutation

TOKENIZER = "test_tokenizer.py"


def in_tokenizer(
    name: str, file: str, old: str, new: str, test: str
) -> Mutation:
    """One that a single test of the tokenizer must catch."""
    return Mutation(name, file, old, new, (f"{TOKENIZER}::{test}",))


def in_settings(
    name: str, file: str, old: str, new: str, test: str
) -> Mutation:
    """One in reading, applying or saving a tokenizer's settings."""
    noticed_by = (f"test_tokenizer_settings.py::{test}",)
    return Mutation(name, f"tokenizer/{file}.py", old, new, noticed_by)


def in_learning(name: str, old: str, new: str) -> Mutation:
    """One in learning merges; files that learn on import cannot catch it."""
    test = "test_counting_only_what_changed_is_counting_all_again"
    noticed_by = (f"test_merges.py::{test}",)
    return Mutation(name, "tokenizer/bpe.py", old, new, noticed_by)


MUTATIONS = [
    # Encoding and decoding.
    in_tokenizer(
        "of equal pairs the rightmost is merged first",
        "tokenizer/bpe.py",
        "at = found.index(lowest)",
        "at = len(found) - 1 - found[::-1].index(lowest)",
        "test_merging_takes_the_lowest_rank_and_then_the_leftmost",
    ),
    in_tokenizer(
        "a long run of spaces is cut at the word, not one space before it",
        "tokenizer/tokenizer.py",
        r"(?=\s\S)",
        r"(?=\S)",
        "test_tiktoken_gets_no_longer_run_than_it_can_take",
    ),
    in_tokenizer(
        "any text may spell a special token",
        "tokenizer/settings.py",
        "(special_tokens if allow_special else {})",
        "special_tokens",
        "test_special_tokens_are_text_unless_asked_for",
    ),
    in_tokenizer(
        "half a character is streamed",
        "tokenizer/tokenizer.py",
        "decoder.decode(self.token_bytes(token_id))",
        'self.token_bytes(token_id).decode("utf-8", "replace")',
        "test_streaming_holds_back_unfinished_characters",
    ),
    in_tokenizer(
        "of several rows only the first is decoded",
        "tokenizer/tokenizer.py",
        "case (1, _):",
        "case (_, _):",
        "test_more_than_one_row_is_decoded_row_by_row",
    ),
    in_tokenizer(
        "what is no id is decoded as the last token",
        "tokenizer/tokenizer.py",
        "if not 0 <= index < self.n_vocab:",
        "if not index < self.n_vocab:",
        "test_what_is_no_id_is_an_error_that_shows_it",
    ),
    in_tokenizer(
        "letters newer than tiktoken's are letters",
        "tokenizer/bpe.py",
        "regex.findall(as_of_unicode_16(SPLIT_PATTERN), text)",
        "regex.findall(SPLIT_PATTERN, text)",
        "test_a_letter_newer_than_unicode_16_is_none",
    ),
    # Learning.
    in_tokenizer(
        "the separator of documents is learned",
        "tokenizer/bpe.py",
        "for document in text.split(END_OF_TEXT):",
        "for document in [text]:",
        "test_the_separator_of_documents_is_not_learned",
    ),
    in_tokenizer(
        "tokens are learned that are too long to be loaded",
        "tokenizer/bpe.py",
        "if len(best[0] + best[1]) > LONGEST_TOKEN:",
        "if False:",
        "test_no_token_is_learned_that_would_not_load",
    ),
    in_learning(
        "the pair after a merged one is not counted again",
        "changes.append((at, (tokens[at], tokens[right]), weight))",
        "pass",
    ),
    in_learning(
        "a merged token is not linked to the one before it",
        "self._next[at], self._previous[right] = right, at",
        "self._next[at] = right",
    ),
    in_learning(
        "tokens are merged from one piece into the next",
        "if change and counts[pair] and all(pair):",
        "if change and counts[pair]:",
    ),
    in_learning(
        "merges of one pair are made in no order",
        "sorted(places.pop(best))",
        "sorted(places.pop(best), reverse=True)",
    ),
    # The vocabulary's files.
    in_tokenizer(
        "merges are written in alphabetical order",
        "tokenizer/saving.py",
        "for a, b in merges]",
        "for a, b in sorted(merges)]",
        "test_saving_and_loading_changes_nothing",
    ),
    in_tokenizer(
        "ids may have gaps",
        "tokenizer/files.py",
        "if token_id != expected:",
        "if token_id < expected:",
        "test_a_hostile_vocabulary_is_refused_by_name_and_reason",
    ),
    in_tokenizer(
        "a merge that can never happen is accepted",
        "tokenizer/files.py",
        "if is_forestalled(first, second, ranks, halves):",
        "if False:",
        "test_hostile_merges_are_refused_by_name_and_reason",
    ),
    in_tokenizer(
        "a pair at the border does not go before an equal one behind it",
        "tokenizer/bpe.py",
        "last_of_second + 1, halves",
        "last_of_second, halves",
        "test_of_equal_pairs_only_the_leftmost_forestalls",
    ),
    in_tokenizer(
        "merges before the border are undone first, however early they are",
        "tokenizer/bpe.py",
        "if last_of_first > last_of_second:",
        "if last_of_first >= 0:",
        "test_of_equal_pairs_only_the_leftmost_forestalls",
    ),
    # Settings.
    in_settings(
        "only the first of several segments gets a prefix space",
        "settings",
        'parts = [p if p.startswith(" ") else f" {p}" for p in parts]',
        'parts[:1] = [p if p.startswith(" ") else f" {p}" for p in parts[:1]]',
        "test_ids_are_those_of_tokenizers",
    ),
    in_settings(
        "of two words that begin alike the shorter is found",
        "settings",
        "key=len, reverse=True",
        "key=len",
        "test_words_are_found_in_any_text_and_kept",
    ),
    in_settings(
        "words are looked for before normalizing",
        "settings",
        "default = Finding(normalized=name in self.words)",
        "default = Finding()",
        "test_ids_are_those_of_tokenizers",
    ),
    in_settings(
        "a token that is a word by itself is found within others",
        "settings",
        "if how.single_word and _touches_a_word(text, start, stop):",
        "if False:",
        "test_flags_say_how_a_token_is_found",
    ),
    in_settings(
        "any split is taken for GPT-2's",
        "pipeline",
        'pattern.get("Regex") in _SAME_PATTERNS',
        'isinstance(pattern.get("Regex"), str)',
        "test_other_steps_are_refused_by_name",
    ),
    in_settings(
        "options of the model are not looked at",
        "pipeline",
        "if model.get(name) not in _OFF:",
        "if False:",
        "test_other_options_are_refused_by_name",
    ),
    in_settings(
        "templates within each other are put together inside out",
        "pipeline",
        "after=(*settings.after, *after),",
        "after=(*after, *settings.after, *after[1:]),",
        "test_ids_are_those_of_tokenizers",
    ),
    in_settings(
        "the default end goes before the one that somebody chose",
        "configuration",
        "            if name != END_OF_TEXT:\n                return name\n",
        "            return name\n",
        "test_what_somebody_chose_goes_before_the_default",
    ),
    in_settings(
        "an older vocab.json is read and not tokenizer.json",
        "contents",
        """    ("tokenizer.json", "tokenizer.json"),
    ("vocab.json", "merges.txt"),
""",
        """    ("vocab.json", "merges.txt"),
    ("tokenizer.json", "tokenizer.json"),
""",
        "test_of_two_vocabularies_transformers_reads_one_and_so_does_this",
    ),
    in_settings(
        "an older vocabulary that disagrees is passed over in silence",
        "contents",
        "if not same:",
        "if False:",
        "test_of_two_vocabularies_transformers_reads_one_and_so_does_this",
    ),
    in_settings(
        "two files may disagree about the prefix space",
        "files",
        "        if in_pipeline:\n",
        "        if False:\n",
        "test_two_files_that_disagree_are_refused",
    ),
    in_settings(
        "two files may disagree about the tokens around a text",
        "files",
        "            if template:\n",
        "            if False:\n",
        "test_two_files_that_disagree_are_refused",
    ),
    in_settings(
        "a missing byte is noticed by nobody",
        "tokenizer",
        "for part in parts if len(self._bytes) < 256 else []:",
        "for part in []:",
        "test_a_byte_that_is_missing_is_refused_where_it_is_needed",
    ),
    in_settings(
        "words are saved as special tokens",
        "saving",
        '"special": name not in settings.words,',
        '"special": True,',
        "test_what_transformers_saves_has_the_same_ids",
    ),
    in_settings(
        "digits are saved where nobody reads them",
        "saving",
        "        or settings.digits\n",
        "",
        "test_ids_are_those_of_tokenizers",
    ),
    in_settings(
        "the tokens of a template are forgotten in a prompt",
        "tokenizer",
        "ids = [*self.settings.before, *ids, *self.settings.after]",
        "ids = [*self.settings.before, *ids]",
        "test_ids_are_those_of_tokenizers",
    ),
    Mutation(
        "a long run of white space may be overlooked",
        "tokenizer/tokenizer.py",
        "half = _LONGEST_RUN // 2",
        "half = _LONGEST_RUN",
        ("test_tokenizer.py::test_a_long_run_is_found_wherever_it_begins",),
    ),
    Mutation(
        "an apostrophe takes every letter for a contraction",
        "tokenizer/tokenizer.py",
        "'(?:[stmd]|re|ve|ll)",
        "'(?:[a-z]|re|ve|ll)",
        ("test_tokenizer.py",),
    ),
]
