from pathlib import Path

import pytest

from recsys.data.dataset import FeatureKind
from recsys.data.readers import read_movielens, read_recbole
from recsys.errors import DataFileError, OrdinalError
from tests.helpers.log_files import feature_of, outside_rows, write_lines, write_people
from tests.helpers.rating_folders import FILMS, WRITERS, draw_ratings

OFFICIAL = [layout for layout in WRITERS if layout != "atomic"]


@pytest.mark.parametrize("layout", list(WRITERS))
def test_every_layout_gives_the_rows_that_were_written(tmp_path: Path, layout: str) -> None:
    ratings = draw_ratings()
    WRITERS[layout](tmp_path, ratings)
    found = (read_recbole if layout == "atomic" else read_movielens)(tmp_path)
    expected = [
        (str(user), str(film), sum(stars >= cut for cut in (3, 4, 5)), moment)
        for user, film, stars, moment in ratings
    ]
    assert outside_rows(found) == expected
    assert found.level_names == ("rated below 3", "rated 3 or more", "rated 4 or more", "rated 5 or more")
    assert found.log["rating"].tolist() == [stars for _, _, stars, _ in ratings]
    assert found.users.ids.tolist() == [str(user) for user in range(1, 13)]


@pytest.mark.parametrize("layout", list(WRITERS))
def test_films_have_titles_years_and_genres_in_the_order_of_their_ids(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path, draw_ratings())
    found = (read_recbole if layout == "atomic" else read_movielens)(tmp_path)
    assert found.items.ids.tolist() == [str(film) for film, *_ in FILMS]
    assert found.items.labels is not None
    ending = "" if layout == "atomic" else " ({})"
    assert found.items.labels.tolist() == [title + ending.format(year) for _, title, year, _ in FILMS]
    assert found.items.features["release_year"].tolist() == [str(year) for _, _, year, _ in FILMS]
    genres = "class" if layout == "atomic" else "genres"
    assert found.items.kinds == {"release_year": FeatureKind.CATEGORICAL, genres: FeatureKind.MULTI_HOT}
    unnamed = () if layout == "csv" else ("unknown",)
    assert [set(cell) for cell in found.items.features[genres]] == [
        set(kinds or unnamed) for *_, kinds in FILMS
    ]


@pytest.mark.parametrize("original", [True, False])
def test_people_are_read_in_latin_1_with_or_without_films(tmp_path: Path, original: bool) -> None:
    WRITERS["original" if original else "dat"](tmp_path, draw_ratings())
    write_people(tmp_path, original=original)
    (tmp_path / ("u.item" if original else "movies.dat")).unlink()
    found = read_movielens(tmp_path)
    assert feature_of(found, "users", "occupation")["3"] == "técnico"
    assert feature_of(found, "users", "age")["12"] == ("32" if original else "25")
    assert set(found.users.kinds.values()) == {FeatureKind.CATEGORICAL}
    assert any("is missing, so nothing is known but ids" in note for note in found.notes)
    assert found.items.features.shape == (8, 0)


def test_a_category_that_tells_most_people_apart_is_left_out_and_noted(tmp_path: Path) -> None:
    ratings = draw_ratings(30)
    WRITERS["original"](tmp_path, ratings)
    write_lines(
        tmp_path / "u.user", [f"{user}|{20 + user % 3}|F|writer|{90000 + user}" for user in range(1, 31)]
    )
    found = read_movielens(tmp_path)
    assert list(found.users.kinds) == ["age", "gender", "occupation"]
    assert "Column `zip_code` is left out: its 30 values for 30 rows say who, not what." in found.notes


def test_cut_points_may_be_chosen(tmp_path: Path) -> None:
    ratings = draw_ratings()
    WRITERS["csv"](tmp_path, ratings)
    found = read_movielens(tmp_path, levels=("4",))
    assert found.level_names == ("rated below 4", "rated 4 or more")
    assert found.log["level"].tolist() == [int(stars >= 4) for _, _, stars, _ in ratings]
    with pytest.raises(OrdinalError, match=r"ascending cut-points, such as 3, 4, 5; got \['good'\]"):
        read_movielens(tmp_path, levels=("good",))


@pytest.mark.parametrize("layout", OFFICIAL)
def test_a_film_named_twice_is_refused_with_both_lines(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path, draw_ratings())
    films = tmp_path / {"original": "u.item", "dat": "movies.dat", "csv": "movies.csv"}[layout]
    content = films.read_bytes()
    films.write_bytes(content + content.splitlines(keepends=True)[-1])
    last = len(content.splitlines())
    with pytest.raises(
        DataFileError, match=rf"line {last + 1}: .* must name each row once; got '21' .* line {last}\."
    ):
        read_movielens(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1::2::5", r"ratings\.dat, line 85 must have 4 cells, .*; got 3"),
        ("1::2::five::9", r"ratings\.dat, line 85: `rating` must be a number; got 'five'"),
        ("::2::5::9", r"ratings\.dat, line 85: `user_id` must not be empty"),
        ("1::2::::9", r"ratings\.dat, line 85: `rating` must be a finite number; got nothing"),
        ("1::2::5::-9", r"ratings\.dat, line 85: `timestamp` must lie in 1970"),
        (
            "1::2::5::1500000000000",
            r"line 85: `timestamp` must lie in 1970\.\.2100 as seconds since 1970; got 15",
        ),
    ],
)
def test_a_wrong_rating_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    WRITERS["dat"](tmp_path, draw_ratings())
    with (tmp_path / "ratings.dat").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataFileError, match=message):
        read_movielens(tmp_path)


def test_moments_in_another_unit_than_the_publishers_are_refused(tmp_path: Path) -> None:
    WRITERS["csv"](
        tmp_path, [(user, film, stars, 1000 * moment) for user, film, stars, moment in draw_ratings()]
    )
    with pytest.raises(
        DataFileError, match=r"ratings\.csv, line 2: `timestamp` must lie in 1970\.\.2100 as seconds"
    ):
        read_movielens(tmp_path)


def test_a_rated_film_without_a_row_is_kept_with_missing_features(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path, [*draw_ratings(), (1, 999, 4.0, 900_000_000)])
    found = read_movielens(tmp_path)
    assert found.items.ids[-1] == "999"
    assert found.items.features.iloc[-1].tolist() == [None, ()]
    assert found.items.labels is not None and found.items.labels.iloc[-1] is None
    assert any("1 items of the log are not in their table, such as ['999']" in note for note in found.notes)


def test_a_folder_without_ratings_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"looked for u\.data, ratings\.dat, ratings\.csv"):
        read_movielens(tmp_path)
