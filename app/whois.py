"""`persona whois`: one user in words and numbers, with the doubt, the choices behind it and a next question."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from app.errors import ConfigError, StoreError
from app.files import read_json
from app.fit_data import read_strict
from app.fit_methods import feature_method
from app.fit_report import POOL_JSON, PROFILES, PROFILES_JSON
from app.fit_text_methods import TEXT_METHODS, load_text_profile
from app.fit_texts import as_question, cut_texts
from app.profile_features import (
    FeatureScale,
    ReplyScores,
    build_features,
    measure_attribute_values,
    prompt_text,
    scores_from_pairs,
    scores_of_pair,
    standardise_attributes,
)
from app.profile_files import load_profile
from app.profile_portrait import Portrait, Question, draw_portrait, next_questions
from app.profile_texts import (
    PAIRS,
    TextPairs,
    ask_committee,
    build_text_lens,
    draw_text_portrait,
    text_questions,
)
from app.profile_wishes import build_lens
from app.whois_words import print_portrait
from persona.data.preferences import Preferences
from persona.profiles.shots import Shot
from persona.types import ReplyPairs

SHOWN_QUESTIONS = 3
NAMELESS = "this user"
"""What the user is called where a file names none."""


class Ask(NamedTuple):
    """What is asked for.

    comparisons: File of what the user chose.
    user: Whose rows to read; None where the file has one user.
    method: Which profile; None takes the best of the comparison.
    questions: File of pairs to ask about; None takes those of the comparison.
    as_json: Whether to print JSON.
    """

    comparisons: Path
    user: str | None = None
    method: str | None = None
    questions: Path | None = None
    as_json: bool = False


class Pair(NamedTuple):
    """Two replies to one prompt, with their scores by objective; of a choice, the first is the preferred one."""

    prompt: str
    first: str
    second: str
    scores: Mapping[str, Sequence[float | None]] = {}


class _Opened(NamedTuple):
    report: dict[str, Any]
    method: str
    folder: Path
    scale: FeatureScale
    pool: list[Pair]


def tell_user(folder: Path, ask: Ask, *, console: Console) -> dict[str, Any]:
    """Print who a user is.

    Args:
        folder: That `persona fit` made.
        ask: Who, and how.
        console: Where it goes.

    Returns:
        What is printed as JSON.

    Raises:
        StoreError: The folder holds no finished comparison.
        ConfigError: There is no such user or method, or no method that learns of users.
        DataError: A file of comparisons cannot be used; the message has the rows.
    """
    opened = _open(folder, ask.method)
    user, choices, left_out = read_choices(ask.comparisons, ask.user)
    judged = {frozenset((pair.first, pair.second)) for pair in choices}
    candidates = opened.pool if ask.questions is None else _read_questions(ask.questions)
    candidates = [pair for pair in candidates if frozenset((pair.first, pair.second)) not in judged]
    look = _look_at_texts if opened.method in TEXT_METHODS else _look
    portrait, questions = look(opened, choices, candidates)
    told = _as_json(opened, user, choices, portrait, [(candidates[q.place], q) for q in questions])
    told["left_out"] = left_out
    if ask.as_json:
        console.print(
            json.dumps(told, indent=2, ensure_ascii=False), markup=False, highlight=False, soft_wrap=True
        )
    else:
        print_portrait(console, told)
    return told


def read_choices(path: Path, user: str | None) -> tuple[str, list[Pair], list[str]]:
    """One user's choices from a file, in its order.

    Args:
        path: The file.
        user: Whose; None where there is one user.

    Returns:
        The user's name and choices, and what of the whole file was left out, a clause each.

    Raises:
        ConfigError: There is no such file or user, or several users and none named.
        DataError: The file cannot be used.
    """
    read = read_strict(path, user=user or NAMELESS)
    indexed, scores = read.comparisons, _scores(read)
    names = [indexed.user_ids[row] for row in indexed.table.user_ids]
    if user is None and len(names) > 1:
        raise ConfigError(
            f"--user must say whose choices to read; got none, and {path} has {len(names)} users: "
            f"{', '.join(names[:3])}{' ...' * (len(names) > 3)}. Name one."
        )
    wanted = names[0] if user is None else user
    if wanted not in names:
        near = get_close_matches(wanted, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"--user must be in {path}, which has {', '.join(names[:3])}{' ...' * (len(names) > 3)}; got {wanted!r}."
            f"{hint} Name one of them."
        )
    table = indexed.table
    rows = np.flatnonzero(table.users == indexed.user_ids.index(wanted))
    choices = [
        Pair(
            prompt_text(indexed.prompts[table.prompts[row]]),
            indexed.replies[table.chosen[row]],
            indexed.replies[table.rejected[row]],
            scores_of_pair(scores, table.chosen[row], table.rejected[row]),
        )
        for row in rows
    ]
    ties = [f"{read.report.ties} where neither reply was chosen"] if read.report.ties else []
    return wanted, choices, [*map(str, read.report.dropped), *ties]


def _read_questions(path: Path) -> list[Pair]:
    read = read_strict(path, user=NAMELESS)
    indexed, scores = read.comparisons, _scores(read)
    table = indexed.table
    pairs = np.unique(np.sort(np.stack([table.chosen, table.rejected], axis=1), axis=1), axis=0)
    return [
        Pair(
            prompt_text(indexed.prompts[indexed.reply_prompts[one]]),
            indexed.replies[one],
            indexed.replies[two],
            scores_of_pair(scores, one, two),
        )
        for one, two in pairs
    ]


def _scores(read: Preferences) -> ReplyScores | None:
    """The scores of a file's replies; it is read for one user, so nothing can be said of who gave them."""
    if not read.scores:
        return None
    return ReplyScores(tuple(read.scores), np.stack(list(read.scores.values()), axis=1))


def _open(folder: Path, method: str | None) -> _Opened:
    if not (folder / PROFILES_JSON).is_file():
        raise StoreError(
            f"DIR must hold a finished comparison of profiles; got {folder}, without {PROFILES_JSON}. Make it with "
            "`persona fit`."
        )
    report = read_json(folder / PROFILES_JSON)
    personal = [name for name in report["order"] if report["methods"][name]["latent_dim"] != 0]
    if not personal:
        raise ConfigError(
            f"DIR must hold a method that learns of users; got {', '.join(report['order'])} in {folder}. Fit others."
        )
    last = f"k{report['context_sizes'][-1]}"
    best = max(personal, key=lambda name: report["methods"][name]["by_context"][last]["accuracy"]["value"])
    chosen = best if method is None else method
    if chosen not in personal:
        raise ConfigError(
            f"--method must be one that learns of users: {', '.join(personal)}; got {chosen}. Name one of them."
        )
    place = folder / PROFILES
    pool = read_json(place / POOL_JSON)
    return _Opened(
        report,
        chosen,
        place / chosen,
        FeatureScale.load(place, pool["features"]),
        [Pair(**pair) for pair in pool["pairs"]],
    )


def _look(opened: _Opened, choices: list[Pair], candidates: list[Pair]) -> tuple[Portrait, list[Question]]:
    """The portrait, and the candidates whose answers would tell most."""
    pairs = [*opened.pool, *choices, *candidates]
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    row = {prompt: place for place, prompt in enumerate(prompts)}
    replies = [text for pair in pairs for text in (pair.first, pair.second)]
    owner = np.repeat([row[pair.prompt] for pair in pairs], 2)
    raw = build_features(
        replies, prompts, owner, opened.scale.names, scores=_needed_scores(opened, choices, pairs)
    )
    features = opened.scale.matrix(raw, owner, feature_method(opened.method).reads)
    shown = slice(0, 2 * len(opened.pool))
    named = standardise_attributes(raw.attributes[shown])
    profile = load_profile(opened.folder)
    with torch.no_grad():
        lens = build_lens(profile, features[shown], named.values, _pairs(len(opened.pool)))
        first, second = profile.lift(features).unflatten(0, (len(pairs), 2)).unbind(1)
        own = slice(len(opened.pool), len(opened.pool) + len(choices))
        context = ReplyPairs(
            first[own][None], second[own][None], torch.ones(1, len(choices), dtype=torch.bool)
        )
        portrait = draw_portrait(profile, context, lens, named.names)
        rest = slice(own.stop, None)
        questions = next_questions(profile, profile.encode(context), first[rest], second[rest])
    return portrait, questions[:SHOWN_QUESTIONS]


def _needed_scores(opened: _Opened, choices: list[Pair], pairs: list[Pair]) -> ReplyScores | None:
    """The scores that methods were fitted to, but for objectives that no choice has: reading those is refused."""
    if not opened.scale.is_scored:
        return None
    names = [name for name in opened.scale.objectives if any(name in pair.scores for pair in choices)]
    return scores_from_pairs([pair.scores for pair in pairs], names)


def _look_at_texts(
    opened: _Opened, choices: list[Pair], candidates: list[Pair]
) -> tuple[Portrait, list[Question]]:
    """The same by a profile over texts; candidates beyond the first `PAIRS` are not asked about, as each takes time."""
    profile, model = load_text_profile(opened.folder)
    pool, candidates = opened.pool[:PAIRS], candidates[:PAIRS]
    values = standardise_attributes(
        measure_attribute_values([text for pair in pool for text in (pair.first, pair.second)])
    )
    everything = [*pool, *choices, *candidates]
    pairs = TextPairs(
        [as_question(text) for text in cut_texts(model, [pair.prompt for pair in everything])],
        cut_texts(model, [pair.first for pair in everything]),
        cut_texts(model, [pair.second for pair in everything]),
    )
    size = len(pool)
    lens_pairs = TextPairs(pairs.conversations[:size], pairs.first[:size], pairs.second[:size])
    lens = build_text_lens(lens_pairs, values.values[::2], values.values[1::2])
    own = range(size, size + len(choices))
    shots = [Shot(pairs.conversations[row], pairs.first[row], pairs.second[row]) for row in own]
    committee = ask_committee(profile, shots, pairs)
    portrait = draw_text_portrait(committee, own, lens, values.names)
    return portrait, text_questions(committee, range(own.stop, len(pairs.first)))[:SHOWN_QUESTIONS]


def _pairs(count: int) -> NDArray[np.int64]:
    return np.arange(2 * count).reshape(count, 2)


def _as_json(
    opened: _Opened,
    user: str,
    choices: list[Pair],
    portrait: Portrait,
    questions: list[tuple[Pair, Question]],
) -> dict[str, Any]:
    method = opened.report["methods"][opened.method]
    size = max(
        (k for k in opened.report["context_sizes"] if k <= len(choices)),
        default=opened.report["context_sizes"][0],
    )
    return {
        "user": user,
        "method": opened.method,
        "title": method["title"],
        "choices": len(choices),
        "wishes": [wish._asdict() for wish in portrait.wishes],
        "doubt_left": portrait.doubt_left,
        "expects_to_foretell": portrait.foretells,
        "expects_of_a_stranger": portrait.stranger,
        "measured": {"known": size, "accuracy": method["by_context"][f"k{size}"]["accuracy"]},
        "telling_choices": [
            {
                **telling._asdict(),
                "place": telling.place + 1,
                **_texts(choices[telling.place], "chosen", "rejected"),
            }
            for telling in portrait.tellings
        ],
        "questions": [
            {
                "gain_bits": question.gain_bits,
                "probability_of_first": question.probability,
                **_texts(pair, "first", "second"),
            }
            for pair, question in questions
        ],
    }


def _texts(pair: Pair, one: str, other: str) -> dict[str, str]:
    return {"prompt": pair.prompt, one: pair.first, other: pair.second}
