"""Turns of phrase that nobody needs to remember: each list is a fork, all its options alike.

Where some are told more often than others, a number says how often.
"""

from __future__ import annotations

from gpt2.stories.words import listed

ACTIVITIES = listed(
    """painting the gate, shelling peas, feeding the hens, eating toast, drawing a whale,
    knitting something long, singing to the cabbages, peeling potatoes,
    sweeping the path, hanging up the washing, mending a chair, counting
    snails, baking bread, writing to the king, learning to juggle, teaching the
    parrot to say please, looking for the other shoe, building a tower of
    plates, reading to the tomatoes, pretending to be a tree, trying to yodel,
    waiting for the rain to begin, polishing the doorknob, lying in the grass,
    talking to the scarecrow, cutting the hedge into a swan, weighing an onion,
    washing the pig, making a very small pie, looking at a map, blowing
    bubbles, telling the bees a joke"""
)
FINDS = listed(
    """half a biscuit, a sleepy spider, a very surprised beetle, a great deal of dust,
    three crumbs, a snail, an old birthday card, a sock with no friend,
    somebody's tooth, a family of moths, a piece of string, last week's
    sandwich, a nest with nobody in it, a cobweb, a dead fly, the smell of
    cheese, a bent nail, a very old carrot, a sleeping bat, two left shoes, a
    toad, a riddle, the end of a pencil, a hole"""
)
# Small events at the edge of a story: who, and what they did.
BYSTANDERS = listed(
    """A butterfly, A bumblebee, A small cloud, A snail, The postman, Two sparrows, A beetle,
    The baker, A yellow leaf, An ant, Somebody's grandmother, A ladybird, Nine
    geese, A sleepy moth, A very thin man, The mayor, A spider, A robin, Three
    caterpillars, A lady in green, A worm, The weathercock, An old tortoise, A
    grasshopper"""
)
DEEDS = listed(
    """went by, stopped to listen, sneezed, took no notice, said nothing, went round and round,
    sat down to wait, came to have a look, fell over, turned around, nodded,
    knew better, went pink, looked the other way, began to sing, hummed a
    tune"""
)
DISHES = listed(
    """pancakes, toast, dumplings, soup, porridge, noodles, potatoes, waffles, rice, a pudding,
    an omelette, cake, fish, salad, beans, sandwiches"""
)
TOPPINGS = listed(
    """honey, butter, plums, cheese, jam, onions, cream, cinnamon, mushrooms, a cherry on top,
    salt, raisins, mustard, lemon"""
)
SWEET = listed(
    """and nobody said a word, which was just what they needed, with their fingers,
    as if it were a birthday, for the second time that day, and the dog got the
    rest, and it was delicious, and talked about the moon"""
)
PREDICAMENTS = listed(
    """stuck in a very small hole, looking for its supper, singing to the moon, having a bad dream,
    practising for the fair, telling itself a story, wearing somebody's
    trousers, afraid of its own shadow, wide awake, dancing with a scarecrow,
    trying to open a door, waiting for the postman, learning to count, talking
    to a potato, standing on one leg, covered in flour, hiding from a moth,
    doing exercises, with a very bad cold, all alone"""
)
# What animals say, when one knows their language.
MEANINGS = listed(
    """very nice, lend it to me, can I eat it?, so what?, mine is bigger, be careful,
    good evening, thank you, go away, what big eyes you have, is it breakfast
    yet?, did you bring any cake?, I am a swan, it was not me, please sing
    something, follow me, do not tell the farmer, it is going to rain"""
)
DAYS = {
    "Monday": 1,
    "Tuesday": 4,
    "Wednesday": 1,
    "Thursday": 2,
    "Friday": 1,
    "Sunday": 2,
}
GOING = listed("ran, hopped, marched, hurried, skipped, crept, raced, tiptoed")
MANNERS = listed(
    "backwards, on one leg, all the way, without a sound, very slowly, with "
    "care, at once, as usual"
)
LOOKING = {" looked": 3, " searched": 1, " hunted": 1}
SIZES = listed("small, round, lumpy, perfect, sweet, crooked, funny, warm")
NIGHTS = listed(
    """slept well that night, was happy, thought about it for a long time, smiled until bedtime,
    told the cat all about it, had a hot bath, drew a picture of it, never told
    anybody, dreamed about it twice, wrote it down in a notebook, made up a
    song about it, laughed about it for a week, stood on a chair and bowed,
    went to bed without being told"""
)
ERRANDS = listed(
    """buy some bread, feed the hens, look at the clouds, ask the baker a question,
    say good morning to the river, see how the beans were growing, find out
    what the noise was, count the sheep, throw stones into the water, learn a
    new word, jump over puddles, catch a fly, visit the blacksmith, lie in the
    grass, climb a tree, talk to the cows"""
)
# How speech is spoken, where anything will do.
SPEAKING = {
    " said": 6,
    " answered": 2,
    " laughed": 1,
    " sighed": 1,
    " yawned": 1,
    " called": 1,
}
SADLY = {" said": 3, " sighed": 2, " whispered": 1}
TAILS = listed(
    """without looking up, after a while, very politely, from up a tree, in one breath,
    as if it were nothing, to nobody in particular, in a small voice,
    scratching one ear, with great dignity"""
)
