"""Turns of phrase that are not mentioned again: each list is a fork with equally likely options."""

from __future__ import annotations

from gpt2.stories.words import listed

ACTIVITIES = listed(
    """singing to the cabbages, teaching the parrot to say please, pretending to be a tree,
    reading to the tomatoes, making a very small pie, telling the bees a joke,
    counting snails"""
)
FINDS = listed(
    """half a biscuit, a sleepy spider, a sock with no friend, two left shoes,
    a very old carrot"""
)
PREDICAMENTS = listed(
    """stuck in a very small hole, singing to the moon, wearing somebody's trousers,
    learning to count, dancing with a scarecrow"""
)
# What the sound of an animal means.
MEANINGS = (
    'very nice."',
    'can I eat it?"',
    'mine is bigger."',
    'do not tell the farmer."',
)
GOING = listed("ran, hopped, marched, crept")
SIZES = listed("small, round, funny, perfect")
NIGHTS = listed(
    """slept well that night, told the cat all about it, dreamed about it twice,
    made up a song about it, stood on a chair and bowed"""
)
ERRANDS = listed(
    """look at the clouds, learn a new word, climb a tree, say good morning to the river"""
)
