"""Personas: read off what users did, true where the truth is known, and the same on disk as in memory."""

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from persona.data.comparisons import ComparisonTable
from persona.rewards.attributes import ATTRIBUTES
from simulators.errors import PersonaError
from simulators.users.persona_building import (
    Manner,
    ObservedChoices,
    describe,
    observe_choices,
    personas_from_log,
)
from simulators.users.personas import (
    Interest,
    Persona,
    ReplyWish,
    load_personas,
    save_personas,
)
from simulators.world import build_film_world, draw_population
from simulators.world.true_personas import personas_from_truth

USERS, PAIRS = 80, 40
WORLD = build_film_world(300, USERS, seed=1)
TRUTH = draw_population(WORLD.catalogue, USERS, seed=1)
NAMES = WORLD.catalogue.feature_names


def observed_choices() -> ObservedChoices:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), PAIRS)
    one, other = rng.normal(size=(2, len(users), len(ATTRIBUTES)))
    first = WORLD.oracle.choose(users, one, other, rng.random(len(users)))
    return ObservedChoices(users, np.where(first[:, None], one - other, other - one))


@pytest.fixture(scope="module")
def personas() -> list[Persona]:
    return personas_from_log(WORLD.log, WORLD.catalogue, range(USERS), choices=observed_choices(), seed=0)


def centred_taste(user: int, interest: Interest) -> float:
    column = TRUTH.taste[:, NAMES.index(f"{interest.kind}={interest.value}")]
    return float(column[user] - column.mean())


def test_observed_interests_and_wishes_mostly_have_the_sign_of_the_truth(personas: list[Persona]) -> None:
    likings = [i.liking * centred_taste(p.user, i) > 0 for p in personas for i in p.interests]
    wishes = [
        w.sign * TRUTH.style[p.user, ATTRIBUTES.index(w.attribute)] > 0
        for p in personas
        for w in p.orientations.wishes
    ]
    assert len(likings) > 4 * USERS and np.mean(likings) > 0.75
    assert len(wishes) > USERS and np.mean(wishes) > 0.95


def test_a_true_persona_says_what_the_truth_holds() -> None:
    for persona in personas_from_truth(TRUTH, WORLD.catalogue, [0, 7], targets=[3, None], seed=0):
        assert persona.patience == TRUTH.patience[persona.user]
        raw = TRUTH.taste[persona.user]
        assert all(
            np.sign(raw[NAMES.index(f"{i.kind}={i.value}")]) == np.sign(i.liking) for i in persona.interests
        )
        assert (persona.target is not None) == (persona.user == 0)


def test_habits_are_thirds_of_the_population(personas: list[Persona]) -> None:
    bars = [persona.orientations.strictness for persona in personas]
    assert all(0.25 < bars.count(bar) / USERS < 0.42 for bar in ("strict", "even", "lenient"))
    mean = WORLD.log.groupby("user_id")["level"].mean()
    strict = mean[[p.user for p in personas if p.orientations.strictness == "strict"]]
    lenient = mean[[p.user for p in personas if p.orientations.strictness == "lenient"]]
    assert strict.max() < lenient.min()
    explorers = sum(persona.activity == "exploration-oriented" for persona in personas)
    assert 0.2 < explorers / USERS < 0.45


def test_who_else_is_described_does_not_matter(personas: list[Persona]) -> None:
    some = personas_from_log(WORLD.log, WORLD.catalogue, [5, 3], choices=observed_choices(), seed=0)
    assert some == [personas[5], personas[3]]


def test_choices_are_differences_of_chosen_and_other_without_ties() -> None:
    attributes = np.arange(24, dtype=float).reshape(4, 6)
    users, prompts, chosen, rejected = np.array([[5, 7, 7], [0, 0, 1], [2, 1, 3], [0, 3, 1]])
    table = ComparisonTable(users, prompts, chosen, rejected, np.array([False, True, False]))
    found = observe_choices(table, attributes)
    assert np.asarray(found.users).tolist() == [5, 7]
    assert np.asarray(found.difference).tolist() == [[12.0] * 6, [12.0] * 6]


def test_nobody_wishes_for_anything_that_was_not_observed() -> None:
    persona = personas_from_log(WORLD.log, WORLD.catalogue, [4], seed=0)[0]
    assert persona.orientations.wishes == ()
    assert persona.language.model_dump() == {"density": "even", "style": "plain", "tone": "even"}


def test_the_strongest_likings_are_described_by_hand() -> None:
    names = ("genre=comedy", "genre=crime", "mood=dark", "length", "mood=tender", "era=the sixties")
    scores = np.array([2.0, 0.4, -0.6, 9.0, 0.7, -1.6])
    lean = np.array([-3.0, 1.2, -1.0, 0.0, 2.0, 0.5])
    persona = describe(9, scores, names, Manner("detail-oriented", "even", 3, lean))
    assert [(i.kind, i.value, i.liking) for i in persona.interests] == [
        ("genre", "comedy", 2),
        ("era", "the sixties", -2),
        ("mood", "tender", 1),
        ("mood", "dark", -1),
    ]
    assert [(w.attribute, w.sign) for w in persona.orientations.wishes] == [("brevity", -1), ("curiosity", 1)]
    assert persona.language.model_dump() == {"density": "wordy", "style": "elaborate", "tone": "warm"}


def test_personas_come_back_from_disk(personas: list[Persona], tmp_path: Path) -> None:
    targeted = personas_from_truth(TRUTH, WORLD.catalogue, [90 % USERS], targets=[2], seed=0)
    save_personas(tmp_path / "people.json", [*personas[:4], *targeted])
    assert load_personas(tmp_path / "people.json") == [*personas[:4], *targeted]
    assert [path.name for path in tmp_path.iterdir()] == ["people.json"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "must be a JSON array; .*people.json is not"),
        ("{}", "holds a dict"),
        (
            '[{"user": 1}, {"user": 2, "patience": 0}]',
            "number 1 of .* has not: patience: .*greater than or equal",
        ),
        ('[{"user": 1, "hobby": "chess"}]', "number 0 .*hobby: Extra inputs"),
        ('[{"user": 1}, {"user": 1}]', r"holds \[1\] more than once"),
    ],
)
def test_a_wrong_file_is_told_by_place(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PersonaError, match=told):
        load_personas(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PersonaError, match=r"nobody\.json is not"):
        load_personas(tmp_path / "nobody.json")


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(PersonaError, match=r"got \[80\] without one"):
        personas_from_log(WORLD.log, WORLD.catalogue, [80], seed=0)
    with pytest.raises(PersonaError, match="one entry a user, 2; got 1"):
        personas_from_log(WORLD.log, WORLD.catalogue, [0, 1], targets=[3], seed=0)
    with pytest.raises(PersonaError, match=r"\(1, 6\); got \(1, 2\)"):
        personas_from_log(WORLD.log, WORLD.catalogue, [0], choices=ObservedChoices([0], [[0.0, 1.0]]), seed=0)


def test_a_user_whose_log_shows_nothing_is_described_too() -> None:
    log = pd.DataFrame({"user_id": [0, 0, 1], "item_id": [1, 2, 1], "level": [0, 0, 0]})
    persona = personas_from_log(log, WORLD.catalogue, [0], seed=0)[0]
    assert persona.interests == () and persona.patience in range(2, 6)


def test_wishes_can_be_of_every_attribute() -> None:
    assert get_args(ReplyWish.model_fields["attribute"].annotation) == ATTRIBUTES
