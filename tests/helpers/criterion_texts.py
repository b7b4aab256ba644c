"""Criteria and replies as sentences: what a context-aware reward must understand when it is told in words.

A reply is the facts of a prompt in a style; six traits of the style are switched on or off independently. A criterion
is a sentence that asks for a trait or for its opposite. Words are read by hashing alone, so an unseen sentence
is understood by the words that it shares with seen ones, and a synonym that never occurred is not.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.data.comparisons import ComparisonTable

TRAITS = ("length", "formality", "enthusiasm", "caution", "questions", "greeting")

FACTS = {
    "How do I keep basil alive indoors?": (
        "Put the pot on a bright sill",
        "Water it when the soil is dry",
        "Cut the tops before they flower",
    ),
    "What should I pack for a day hike?": (
        "Take a map and a full bottle",
        "Carry a rain jacket in the bag",
        "Add some nuts and a small first aid kit",
    ),
    "Why does my bread not rise?": (
        "The yeast may have been old",
        "Cold dough needs more hours",
        "Salt poured on yeast slows it down",
    ),
    "How can I sleep better?": (
        "Go to bed at the same hour",
        "Leave the phone in another room",
        "Drink no coffee after lunch",
    ),
    "How do I clean a cast iron pan?": (
        "Rinse it with hot water",
        "Scrub it with coarse salt",
        "Dry it and rub in a thin coat of oil",
    ),
    "What makes the sky blue?": (
        "Air scatters short waves of light",
        "Blue is scattered far more than red",
        "So it reaches the eye from all sides",
    ),
    "How do I start to run?": (
        "Begin with slow short rounds",
        "Walk between them to get your breath back",
        "Rest a day after each run",
    ),
    "How should I greet new neighbours?": (
        "Knock at a quiet hour",
        "Bring a small cake or some fruit",
        "Tell them your name and your door",
    ),
    "How do I fix a flat bicycle tyre?": (
        "Take off the wheel and the tube",
        "Find the hole in a bowl of water",
        "Glue a patch on and pump it up",
    ),
    "How can I learn more words in Spanish?": (
        "Read a page of a children's book",
        "Write ten words on cards each day",
        "Say them aloud in short sentences",
    ),
    "What is a good first instrument?": (
        "A ukulele is small and cheap",
        "Four strings are easy for the fingers",
        "Most songs need only three chords",
    ),
    "How do I get a stain out of a shirt?": (
        "Dab it with cold water",
        "Rub in a drop of dish soap",
        "Wash it before the stain has dried",
    ),
    "How do I choose a melon?": (
        "Lift a few and take the heavy one",
        "Smell the end of the stem",
        "Knock on it and listen for a dull sound",
    ),
    "How do bees find their way?": (
        "They keep the sun at an angle",
        "They learn the shapes of trees and walls",
        "A dance tells the others where to fly",
    ),
    "How do I cook rice without a cooker?": (
        "Rinse the grains until the water is clear",
        "Boil one cup in two cups of water",
        "Turn the heat off and leave the lid on",
    ),
    "How do I save money on heating?": (
        "Seal the gaps under doors",
        "Turn the rooms down at night",
        "Bleed the radiators once a year",
    ),
}

WISHES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "length": (
        (
            "a longer answer is better",
            "prefer the longer and more detailed reply",
            "the reply should be long and full of detail",
            "give me as much detail as you can",
            "I like long detailed answers",
            "more detail is better than less",
            "choose the reply with more detail",
            "the more detailed of the two wins",
        ),
        (
            "a shorter answer is better",
            "prefer the shorter and more concise reply",
            "the reply should be short and brief",
            "keep it as brief as you can",
            "I like short concise answers",
            "brief is better than long winded",
            "choose the reply that is more concise",
            "the shorter of the two wins",
        ),
    ),
    "formality": (
        (
            "a more formal tone is better",
            "prefer the formal and professional reply",
            "the reply should be formal and official in tone",
            "write as a professional would, in formal words",
            "I like a professional tone",
            "formal language please",
            "choose the reply with the more formal language",
            "the more professional of the two wins",
        ),
        (
            "a more casual tone is better",
            "prefer the casual and relaxed reply",
            "the reply should be casual and chatty in tone",
            "write as a buddy would, in relaxed words",
            "I like a chatty tone",
            "casual language please",
            "choose the reply with the more casual language",
            "the more relaxed of the two wins",
        ),
    ),
    "enthusiasm": (
        (
            "more enthusiasm is better",
            "prefer the excited and enthusiastic reply",
            "the reply should be lively and full of energy",
            "sound as excited as you can",
            "I like enthusiastic answers",
            "energy and enthusiasm please",
            "choose the reply that sounds more excited",
            "the more enthusiastic of the two wins",
        ),
        (
            "a calm and sober voice is better",
            "prefer the calm and neutral reply",
            "the reply should be sober and matter of fact",
            "sound as neutral as you can",
            "I like calm answers",
            "calm and sober please",
            "choose the reply that sounds more neutral",
            "the calmer and more sober of the two wins",
        ),
    ),
    "caution": (
        (
            "admitting doubt is better",
            "prefer the careful reply that admits doubt",
            "the reply should be cautious and hedge its claims",
            "be as cautious as you can, and hedge",
            "I like careful answers that hedge",
            "careful claims and some doubt please",
            "choose the reply that is more cautious",
            "the more careful of the two wins",
        ),
        (
            "a confident claim is better",
            "prefer the confident reply that sounds certain",
            "the reply should be direct and sure of its claims",
            "be as confident as you can, and certain",
            "I like direct answers that are sure",
            "certain claims and no maybe please",
            "choose the reply that is more confident",
            "the more certain and direct of the two wins",
        ),
    ),
    "questions": (
        (
            "asking me back is better",
            "prefer the reply that asks a question",
            "the reply should end with a question to me",
            "ask me something in return",
            "I like it when I am asked a follow up question",
            "a question back please",
            "choose the reply that asks me something",
            "the one that asks a follow up wins",
        ),
        (
            "a plain statement is better",
            "prefer the reply made of statements",
            "the reply should be only statements, nothing to respond to",
            "never request anything in return",
            "I like statements that need no response",
            "statements only please",
            "choose the reply that I need not respond to",
            "the one made of statements wins",
        ),
    ),
    "greeting": (
        (
            "a warm welcome is better",
            "prefer the friendly reply with a greeting",
            "the reply should say hello and be warm",
            "greet me like a friend",
            "I like a friendly hello",
            "a warm greeting please",
            "choose the reply with the friendly welcome",
            "the warmer and more friendly of the two wins",
        ),
        (
            "getting to the point at once is better",
            "prefer the reply that skips pleasantries",
            "the reply should start with the point",
            "skip the small talk",
            "I like no pleasantries, only the point",
            "the point at once please",
            "choose the reply that skips small talk",
            "the one without pleasantries wins",
        ),
    ),
}

SEEN_PHRASINGS = 6
"""Of the eight sentences for each wish; the last two are for testing."""

_FORMAL = ("One is advised to proceed as follows.", "Furthermore, {}.", "In addition, {}.")
_CASUAL = ("Ok, so here's what I'd do.", "Then {}, that's it.", "And yeah, {}.")
_JOY = ("How wonderful that you ask!", "This is a fantastic thing to do!")
_DOUBT = ("Perhaps", "This may not always hold, but it could possibly work.")
_HELLO = ("Hello dear friend, and welcome.", "Hi there, thanks for asking, I hope all is good.")
_ASK = ("Would you like to know more?", "What have you tried so far?", "Which part should I explain?")


class Replies(NamedTuple):
    """texts: All styles of all prompts. traits: 1 where a trait is on, shape (N, 6). prompts: Rows, shape (N,)."""

    texts: tuple[str, ...]
    traits: NDArray[np.int64]
    prompts: NDArray[np.int64]


class Wishes(NamedTuple):
    """texts: Sentences. traits: What each asks for, or, where signs is -1, for the opposite of. Shape (Z,)."""

    texts: list[str]
    traits: NDArray[np.int64]
    signs: NDArray[np.int64]


def write_replies(seed: int = 0) -> Replies:
    """Each prompt's facts in all 64 styles, with variants of wording drawn."""
    rng = np.random.default_rng(seed)
    styles = (np.arange(64)[:, None] >> np.arange(len(TRAITS))) & 1
    texts: list[str] = []
    owners: list[int] = []
    for row, facts in enumerate(FACTS.values()):
        texts += [_write(facts, style.astype(bool), rng) for style in styles]
        owners += [row] * len(styles)
    return Replies(tuple(texts), np.tile(styles, (len(FACTS), 1)), np.asarray(owners))


def _write(facts: Sequence[str], style: NDArray[np.bool_], rng: np.random.Generator) -> str:
    long, formal, joyful, cautious, asking, greeting = style.tolist()
    kept = list(facts) if long else [facts[int(rng.integers(len(facts)))]]
    voice = _FORMAL if formal else _CASUAL
    first = kept[0] if not cautious else f"{_DOUBT[0]} {kept[0][0].lower()}{kept[0][1:]}"
    sentences = [voice[0], f"{first}."]
    sentences += [
        form.format(fact[0].lower() + fact[1:]) for form, fact in zip(voice[1:], kept[1:], strict=False)
    ]
    if greeting:
        sentences.insert(0, _HELLO[rng.integers(len(_HELLO))])
    if joyful:
        sentences.insert(int(greeting), _JOY[rng.integers(len(_JOY))])
    if cautious:
        sentences.append(_DOUBT[1])
    if asking:
        sentences.append(_ASK[rng.integers(len(_ASK))])
    return " ".join(sentences)


def wishes(*, seen: bool) -> Wishes:
    """Sentences of the seen phrasings, or of the others."""
    texts: list[str] = []
    traits: list[int] = []
    signs: list[int] = []
    for trait, (more, less) in enumerate(WISHES.values()):
        for sign, phrasings in ((1, more), (-1, less)):
            kept = phrasings[:SEEN_PHRASINGS] if seen else phrasings[SEEN_PHRASINGS:]
            texts += kept
            traits += [trait] * len(kept)
            signs += [sign] * len(kept)
    return Wishes(texts, np.asarray(traits), np.asarray(signs))


def judge(
    replies: Replies,
    wished: Wishes,
    prompts: NDArray[np.int64],
    *,
    count: int,
    first_row: int = 0,
    reversals: bool = False,
    seed: int = 0,
) -> ComparisonTable:
    """Pairs of replies to one prompt, judged by wishes given by trait and sign.

    Args:
        replies: What is compared.
        wished: What is asked for.
        prompts: Rows of the prompts that are used.
        count: Pairs to draw; those that the wish does not tell apart are left out.
        first_row: Row of the first wish among all criteria.
        reversals: Judge each pair twice in a row, by two wishes that disagree; other draws are left out.
        seed: Draws pairs and wishes.
    """
    rng = np.random.default_rng(seed)
    of_prompt = np.argsort(replies.prompts, kind="stable").reshape(-1, 64)
    prompt = rng.choice(prompts, size=count)
    place = rng.integers(64, size=count)
    one, other = of_prompt[prompt, place], of_prompt[prompt, (place + rng.integers(1, 64, size=count)) % 64]
    wish = rng.integers(len(wished.texts), size=(count, 2))
    gain = np.take_along_axis(replies.traits[one] - replies.traits[other], wished.traits[wish], axis=1)
    gain *= wished.signs[wish]
    if reversals:
        kept = (gain[:, 0] > 0) & (gain[:, 1] < 0)
        a, b = one[kept], other[kept]
        return ComparisonTable(
            first_row + wish[kept].ravel(),
            prompt[kept].repeat(2),
            np.stack([a, b], axis=1).ravel(),
            np.stack([b, a], axis=1).ravel(),
        )
    kept = gain[:, 0] != 0
    ahead = gain[kept, 0] > 0
    a, b = one[kept], other[kept]
    return ComparisonTable(
        first_row + wish[kept, 0], prompt[kept], np.where(ahead, a, b), np.where(ahead, b, a)
    )


def hash_sentences(texts: Sequence[str], known: Sequence[str], size: int = 512) -> Tensor:
    """Bags of hashed words, rare ones among the `known` sentences weighing more, unknown ones nothing.

    Returns:
        Rows of length 1, or 0 for a sentence of unknown words alone. Shape (N, size).
    """
    seen = _count_hashes(known, size) != 0
    rarity: Tensor = torch.log((1 + len(known)) / (1 + seen.sum(0))) * seen.any(0)
    rows: Tensor = _count_hashes(texts, size) * rarity
    length: Tensor = rows.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return rows / length


def _count_hashes(texts: Sequence[str], size: int) -> Tensor:
    rows = torch.zeros(len(texts), size)
    for row, text in enumerate(texts):
        for word in text.lower().replace(",", "").split():
            code = zlib.crc32(word.encode())
            rows[row, code % size] += 1.0 if code & (1 << 20) else -1.0
    return rows
