"""Catalogues: cards, features, and the invented one."""

import numpy as np
import pandas as pd
import pytest

from persona.rewards.attributes import EXCITED, WARM
from simulators.errors import CatalogueError
from simulators.world import Catalogue, invent_catalogue
from simulators.world.catalogue import era_of_years
from simulators.world.invention import MOODS
from simulators.world.names import with_article


def two_films() -> Catalogue:
    known = ("a", "One", 1994, ("comedy", "romance", "drama"), "dark", "the nineties", "slow", 104)
    films = pd.DataFrame(
        [
            (*known, "Ann Ode", ("Bo Ives", "Cy Dent"), "a baker who sings"),
            ("b", "Two", None, (), None, None, None, None, None, (), None),
        ],
        columns="item_id title year genres mood era pace length director cast plot".split(),
    ).astype({"year": "Int64", "length": "Int64"})
    return Catalogue.of_films(films, ["comedy", "drama", "romance"])


@pytest.fixture(scope="module")
def invented() -> Catalogue:
    return invent_catalogue(2400, seed=0)


def test_card_has_facts_in_the_words_to_be_used() -> None:
    card = two_films().card(0)
    assert (card.item, card.title) == (0, "One")
    assert dict(card.facts) == {
        "year": "1994",
        "genre": "comedy and romance",
        "mood": "dark",
        "era": "the nineties",
        "pace": "slow",
        "length": "104 minutes",
        "director": "Ann Ode",
        "cast": "Bo Ives and Cy Dent",
        "plot": "a baker who sings",
    }


def test_card_leaves_unknown_facts_out() -> None:
    assert dict(two_films().card(1).facts) == {}


def test_features_are_multi_hot_one_hot_and_standardised() -> None:
    catalogue = two_films()
    assert catalogue.feature_names == (
        *(
            "genre=comedy",
            "genre=drama",
            "genre=romance",
            "mood=dark",
            "era=the nineties",
            "pace=slow",
            "length",
        ),
    )
    assert catalogue.features.dtype == np.float32
    np.testing.assert_array_equal(catalogue.features, [[1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]])


def test_has_genre_looks_at_every_genre_of_a_film() -> None:
    assert two_films().has_genre("drama").tolist() == [True, False]


def test_eras_are_decades_in_words() -> None:
    years = pd.Series([1902, 1926, 1999, 2003, 2024, None], dtype="Int64")
    assert era_of_years(years) == [
        *("the silent years", "the twenties", "the nineties", "the two thousands", "the twenty-twenties"),
        None,
    ]


def test_unknown_rows_and_genres_are_refused() -> None:
    with pytest.raises(CatalogueError, match=r"0\.\.1; got 2"):
        two_films().card(2)
    with pytest.raises(CatalogueError, match=r"0\.\.1; got -1"):
        two_films().card(-1)
    with pytest.raises(CatalogueError, match=r"3 genres of this catalogue; got 'opera'"):
        two_films().has_genre("opera")


def test_tables_without_films_or_columns_are_refused() -> None:
    films = two_films().films
    with pytest.raises(CatalogueError, match=r"got 0 films without \[\]"):
        Catalogue.of_films(films.iloc[:0], [])
    with pytest.raises(CatalogueError, match=r"got 2 films without \['plot'\]"):
        Catalogue.of_films(films.drop(columns="plot"), [])


def test_films_that_know_nothing_have_no_features() -> None:
    catalogue = Catalogue.of_films(two_films().films.iloc[1:], [])
    assert catalogue.features.shape == (1, 0)


def test_invented_titles_are_unique_for_any_size(invented: Catalogue) -> None:
    assert len(invented) == 2400
    assert invented.films["title"].is_unique
    assert invent_catalogue(6000, seed=1).films["title"].is_unique


def test_every_invented_card_has_every_fact(invented: Catalogue) -> None:
    names = {"year", "genre", "mood", "era", "pace", "length", "director", "cast", "plot"}
    assert all(set(invented.card(i).facts) == names for i in range(len(invented)))


def test_the_same_seed_invents_the_same_films() -> None:
    first, second = invent_catalogue(50, seed=3), invent_catalogue(50, seed=3)
    pd.testing.assert_frame_equal(first.films, second.films)
    np.testing.assert_array_equal(first.features, second.features)
    assert not first.films["title"].equals(invent_catalogue(50, seed=4).films["title"])


def test_invented_attributes_hang_together(invented: Catalogue) -> None:
    films = invented.films.assign(first=invented.films["genres"].str[0])
    dark = films["mood"].isin(["eerie", "dark", "tense", "gritty"]).groupby(films["first"]).mean()
    assert dark["horror"] > 0.7
    assert dark["romance"] < 0.2
    length = films.groupby("pace")["length"].mean()
    assert length["slow"] > length["steady"] > length["fast"]
    assert films.groupby("first")["year"].mean()["western"] < films["year"].mean() - 10


def test_films_of_one_person_lie_in_one_career(invented: Catalogue) -> None:
    spread = invented.films.groupby("director")["year"].agg(lambda years: years.max() - years.min())
    assert spread.median() < 25


def test_a_cast_has_two_different_people_other_than_the_director(invented: Catalogue) -> None:
    films = invented.films
    people = [{*cast, director} for cast, director in zip(films["cast"], films["director"], strict=True)]
    assert all(len(group) == 3 for group in people)


def test_moods_do_not_count_as_warm_or_excited_words() -> None:
    assert not (WARM | EXCITED) & set(MOODS)


def test_a_catalogue_needs_a_film() -> None:
    with pytest.raises(CatalogueError, match=r"at least 1; got 0"):
        invent_catalogue(0, seed=0)


def test_articles_follow_the_first_letter() -> None:
    assert with_article("Orbit") == "an Orbit"
    assert with_article("baker") == "a baker"
