"""Choice scenes of the film world in words, and a teacher that tells what a fitted choice model believes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys import columns
from simulators.mirror import (
    ChoiceScenes,
    LevelModel,
    fit_choices,
    fit_levels,
    option_covariates,
    sampled_scenes,
)
from simulators.mirror.rationales import STYLES, option_labels, scene_text
from simulators.mirror.selection import split_by_user
from simulators.recipes.mirroring import DecisionScenes
from simulators.world import World, build_film_world

Values = NDArray[np.float64]
Ints = NDArray[np.int64]

N_OPTIONS = 5
REMEMBERED = 3
WISH_PULL = 1.0
"""Logits that the teacher gives to an option of the genre that the user asks for."""


class FilmScenes(NamedTuple):
    """Scenes of the film world.

    scenes: As rows of users and items.
    told: In words, what the user asks for first.
    choice: P(option) of the choice model, fitted to the learners alone. Shape (S, O).
    wished: Whether each option has the genre that the user asks for. Shape (S, O).
    facts: Genre, mood and pace of every film.
    likings: What the choice model believes each user to like best, of genres and moods. One a user.
    learners, validation, test: Rows of the scenes of three groups of users.
    twins: Scenes left out as two of their options share genre and mood.
    """

    scenes: ChoiceScenes
    told: DecisionScenes
    choice: Values
    wished: NDArray[np.bool_]
    facts: list[tuple[str, str, str]]
    likings: list[str]
    learners: Ints
    validation: Ints
    test: Ints
    twins: int


def film_scenes(*, films: int, users: int, impressions: int, letters: bool, seed: int) -> FilmScenes:
    """Scenes from the last third of each user's log; the level model knows the first two thirds, of all users.

    Args:
        films: Films of the world.
        users: Its users, of whom a fifth each is for validation and test.
        impressions: Rows of the log for each user.
        letters: Whether options are labelled by letters, or by their own words.
        seed: Of everything.
    """
    world = build_film_world(films, users, seed=seed, impressions_per_user=impressions)
    early, _ = split_by_user(world.log, 2 / 3)
    model = fit_levels(
        early,
        world.catalogue.features.astype(np.float64),
        n_users=users,
        n_levels=world.oracle.n_levels,
        n_factors=0,
        use_exposure=True,
        iterations=15,
        seed=seed,
    )
    facts = _facts(world)
    taken = world.log[world.log[columns.LEVEL] >= 1].reset_index(drop=True)
    every = sampled_scenes(taken, n_items=films, n_options=N_OPTIONS, seed=seed)
    last = early.groupby(columns.USER)[columns.TIMESTAMP].max().to_numpy()
    late = every.take(every.times > last[every.users])
    twins = np.asarray(
        [len({facts[i][:2] for i in options}) < N_OPTIONS for options in late.options.tolist()]
    )
    scenes = late.take(~twins)
    rng = np.random.default_rng((seed, 1))
    wishes = world.oracle.wish(scenes.users, rng.random(len(scenes)))
    group = rng.permutation(users)[scenes.users] * 5 // users
    learners = group < 3
    covariates, available = option_covariates(model, scenes)
    fitted = fit_choices(
        covariates[learners],
        available[learners],
        scenes.chosen[learners],
        scenes.users[learners],
        n_users=users,
    )
    wished = np.asarray(
        [
            [facts[item][0] == wish["genre"] for item in row]
            for row, wish in zip(scenes.options.tolist(), wishes, strict=True)
        ]
    )
    return FilmScenes(
        scenes,
        _in_words(world, scenes, facts, wishes, letters=letters),
        fitted.probabilities(covariates, available, scenes.users)[:, :N_OPTIONS],
        wished,
        facts,
        _likings(world, model),
        np.flatnonzero(learners),
        np.flatnonzero(group == 3),
        np.flatnonzero(group == 4),
        int(twins.sum()),
    )


def teacher_chances(films: FilmScenes, rows: Ints) -> Values:
    """P(option) that the teacher draws from: the choice model's, pulled to what the user asks for. Shape (S, O)."""
    pull = films.choice[rows] * np.exp(WISH_PULL * films.wished[rows])
    chances: Values = pull / pull.sum(axis=1, keepdims=True)
    return chances


def teacher_stories(films: FilmScenes, rows: Ints, *, rationales: int, seed: int) -> list[list[str]]:
    """Thoughts of a teacher that draws options by what the choice model believes and what the user asks for.

    It does not know what was taken, nor the truth of the world.

    Args:
        films: The scenes.
        rows: Which of them to tell.
        rationales: D of each.
        seed: Draws the options.
    """
    rng = np.random.default_rng((seed, 2))
    chance = teacher_chances(films, rows).cumsum(axis=1)
    drawn = (chance[:, None] < rng.random((len(rows), rationales, 1))).sum(axis=2)
    return [
        [_thoughts(films, row, min(option, N_OPTIONS - 1)) for option in options]
        for row, options in zip(rows.tolist(), drawn.tolist(), strict=True)
    ]


def _thoughts(films: FilmScenes, row: int, option: int) -> str:
    genre, mood, _ = films.facts[int(films.scenes.options[row, option])]
    liked = films.likings[int(films.scenes.users[row])]
    style = STYLES[3] if liked in (genre, mood) else STYLES[0] if films.wished[row, option] else STYLES[1]
    return f"stimulus: {genre}, {mood}\nknowledge: likes {liked}\nevaluation: {style}"


def _facts(world: World) -> list[tuple[str, str, str]]:
    cards = (world.catalogue.card(item).facts for item in range(len(world.catalogue)))
    return [(card["genre"].split(" and ")[0], card["mood"], card["pace"]) for card in cards]


def _likings(world: World, model: LevelModel) -> list[str]:
    """The genre or mood of the largest believed weight of each user."""
    names = world.catalogue.feature_names
    among = [place for place, name in enumerate(names) if name.startswith(("genre=", "mood="))]
    best = model.users.mean[:, among].argmax(axis=1)
    return [names[among[place]].partition("=")[2] for place in best.tolist()]


def _in_words(
    world: World,
    scenes: ChoiceScenes,
    facts: list[tuple[str, str, str]],
    wishes: list[dict[str, str]],
    *,
    letters: bool,
) -> DecisionScenes:
    taken = world.log[world.log[columns.LEVEL] >= 1]
    met = {
        user: (own[columns.TIMESTAMP].to_numpy(), own[columns.ITEM].to_numpy())
        for user, own in taken.groupby(columns.USER)
    }
    texts, labels = [], []
    rows = zip(scenes.users.tolist(), scenes.times.tolist(), scenes.options.tolist(), wishes, strict=True)
    for user, time, options, wish in rows:
        times, items = met[user]
        before = [", ".join(facts[item]) for item in items[times < time][-REMEMBERED:].tolist()]
        offered = [", ".join(facts[item]) for item in options]
        texts.append(f"Wants: {', '.join(wish.values())}\n{scene_text(before, offered)}")
        labels.append(option_labels(N_OPTIONS) if letters else tuple(offered))
    return DecisionScenes.of(texts, labels, scenes.chosen)
