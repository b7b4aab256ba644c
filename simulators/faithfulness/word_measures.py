"""The measures of words, simulated and real side by side, as plain values for a report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.significance import Interval
from simulators.faithfulness.diversity import distinct_n, self_bleu
from simulators.faithfulness.rates import RateGap, compare_means, compare_rates
from simulators.faithfulness.resampling import Values
from simulators.faithfulness.speech import SpokenDialogue, dialogue_items, known_things
from simulators.faithfulness.stated import GENRES, Vocabulary, disclosures, statements
from simulators.faithfulness.two_sample import TwoSample, drawn_users, text_features, two_sample_auc
from simulators.faithfulness.user_errors import Severity, Tag, UserError, find_user_errors
from simulators.users.title_guard import mask_title
from simulators.words import words_of

MOST_USERS = 400
"""Users of each side that a classifier of words is trained on, at most."""
REFITS = 49
"""Dealt sides that it is fitted to anew; each fit of hashed words takes tens of milliseconds."""
HALVES = 40
_MOST_TEXTS = 300
_LAST_TURN = 10
_EXAMPLES = 3

Dialogues = tuple[SpokenDialogue, ...]
Part = dict[str, Any]


def as_measure(found: Interval) -> Part:
    """value, ci95 and n as JSON holds them, None for what is not finite."""
    value, low, high = (float(end) if np.isfinite(end) else None for end in found[:3])
    return {"value": value, "ci95": [low, high], "n": found.n}


def rate_part(found: RateGap) -> Part:
    """A rate on both sides, and the gap."""
    return {name: as_measure(getattr(found, name)) for name in RateGap._fields}


def things_wished(simulated: Dialogues, real: Dialogues) -> Vocabulary:
    """What users of either side may wish for: what cards and personas tell of, and the usual genres."""
    return Vocabulary(known_things(simulated) | known_things(real) | GENRES)


def word_two_sample(simulated: Dialogues, real: Dialogues, *, seed: int) -> TwoSample:
    """Whether what users say tells simulated from real; titles shown in a dialogue are blanked out first.

    Args:
        simulated: Dialogues of simulated users.
        real: Dialogues of real users.
        seed: Draws users, folds and sides.

    Raises:
        FaithfulnessError: Too few users on a side.
        MissingDependency: scikit-learn is not installed.
    """
    one, other = (
        drawn_users(
            text_features(
                [dialogue.user for dialogue in side],
                ["\n".join(_without_titles(dialogue)) for dialogue in side],
            ),
            MOST_USERS,
            seed=seed,
        )
        for side in (simulated, real)
    )
    return two_sample_auc(one, other, seed=seed, n_permutations=REFITS)


def diversity_part(simulated: Dialogues, real: Dialogues, *, seed: int) -> Part:
    """Self-BLEU and distinct n-grams at equal numbers of messages, one message a user.

    Values are means over random halves of the users, whose spread is about that of drawing users anew (the
    delete-half jackknife; drawing with replacement would count copies as sameness).

    Args:
        simulated: Dialogues of simulated users.
        real: Dialogues of real users.
        seed: Draws users and messages.
    """
    said = [_by_user(side) for side in (simulated, real)]
    size = min(_MOST_TEXTS, min(len(side) for side in said) // 2)
    if size < 2:
        return {}
    drawn: dict[str, list[tuple[float, float]]] = {"self_bleu": [], "distinct_1": [], "distinct_2": []}
    rng = np.random.default_rng(seed)
    for _ in range(HALVES):
        texts = [_one_each(side, size, rng) for side in said]
        drawn["self_bleu"].append((self_bleu(texts[0]), self_bleu(texts[1])))
        for n in (1, 2):
            drawn[f"distinct_{n}"].append((distinct_n(texts[0], n), distinct_n(texts[1], n)))
    return {"messages": size} | {name: _halves(np.asarray(pairs), size) for name, pairs in drawn.items()}


def error_part(simulated: Dialogues, real: Dialogues, *, accept_level: int, seed: int) -> Part:
    """Shares of dialogues with a fault of each tag and severity, and a few examples.

    Args:
        simulated: Dialogues of simulated users.
        real: Dialogues of real users.
        accept_level: Level from which an item counts as accepted.
        seed: Draws users.
    """
    things = things_wished(simulated, real)
    found = [
        [find_user_errors(dialogue, things, accept_level=accept_level) for dialogue in side]
        for side in (simulated, real)
    ]
    users = [[dialogue.user for dialogue in side] for side in (simulated, real)]

    def share(has: Any) -> Part:
        flags = [np.asarray([any(has(error) for error in own) for own in side]) for side in found]
        return rate_part(compare_rates((users[0], flags[0]), (users[1], flags[1]), seed=seed))

    critical = {Severity.HELPED, Severity.HINDERED}
    return {
        "tags": {tag.name.lower(): share(lambda error, tag=tag: error.tag is tag) for tag in Tag},
        "critical": share(lambda error: error.severity in critical),
        "helped": share(lambda error: error.severity is Severity.HELPED),
        "hindered": share(lambda error: error.severity is Severity.HINDERED),
        "role_swap": share(lambda error: error.tag is Tag.ROLE_SWAP),
        "contradiction": share(lambda error: error.tag is Tag.CONTRADICTION),
        "stated": [_stated_share(side, things) for side in (simulated, real)],
        "examples": _examples(simulated, found[0]),
    }


def disclosure_part(simulated: Dialogues, real: Dialogues, *, seed: int) -> Part:
    """How many things users name for the first time at each of their messages, mean over dialogues that get there.

    Args:
        simulated: Dialogues of simulated users.
        real: Dialogues of real users.
        seed: Draws users.
    """
    things = things_wished(simulated, real)
    told = [[disclosures(dialogue, things) for dialogue in side] for side in (simulated, real)]
    turns = min(_LAST_TURN, *(max(map(len, side), default=0) for side in told))
    rows = []
    for turn in range(turns):
        sides = [
            ([d.user for d, own in zip(side, counts, strict=True) if len(own) > turn],
             [own[turn] for own in counts if len(own) > turn])
            for side, counts in zip((simulated, real), told, strict=True)
        ]  # fmt: skip
        rows.append({"turn": turn + 1, **rate_part(compare_means(sides[0], sides[1], seed=seed))})
    return {"turns": rows, "things": len(things)}


def _stated_share(side: Dialogues, things: Vocabulary) -> float:
    """Share of dialogues in which the rules find a statement at all."""
    return sum(bool(statements(dialogue.said, things)) for dialogue in side) / max(len(side), 1)


def _examples(side: Dialogues, errors: Sequence[Sequence[UserError]]) -> list[Part]:
    """The first messages with each tag."""
    found: dict[Tag, list[Part]] = {}
    for dialogue, own in zip(side, errors, strict=True):
        for error in own:
            said = dialogue.said
            shown = found.setdefault(error.tag, [])
            if len(shown) < _EXAMPLES:
                text = said[error.turn] if error.turn < len(said) else ""
                shown.append(
                    {"tag": error.tag, "severity": error.severity, "user": dialogue.user, "text": text}
                )
    return [row for tag in Tag for row in found.get(tag, [])]


def _without_titles(dialogue: SpokenDialogue) -> list[str]:
    titles = dict.fromkeys((*dialogue.targets, *dialogue_items(dialogue)))
    found = []
    for text in dialogue.said:
        for title in titles:
            text = mask_title(text, title)
        found.append(text)
    return found


def _by_user(side: Dialogues) -> Mapping[str, list[list[str]]]:
    """Words of every message of each user that has any."""
    found: dict[str, list[list[str]]] = {}
    for dialogue in side:
        for text in dialogue.said:
            if words := words_of(text):
                found.setdefault(dialogue.user, []).append(words)
    return found


def _one_each(said: Mapping[str, list[list[str]]], size: int, rng: np.random.Generator) -> list[list[str]]:
    users = sorted(said)
    chosen = rng.choice(len(users), size, replace=False)
    return [said[users[u]][int(rng.integers(len(said[users[u]])))] for u in chosen]


def _halves(pairs: Values, n: int) -> Part:
    found = {}
    for name, values in (
        ("simulated", pairs[:, 0]),
        ("real", pairs[:, 1]),
        ("gap", pairs[:, 0] - pairs[:, 1]),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        found[name] = as_measure(Interval(float(values.mean()), float(low), float(high), n))
    return found
