"""Every layout of MovieLens, and what is said about a folder that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulators.errors import CatalogueError
from simulators.world import level_of_stars, read_movielens
from simulators.world.movielens import tidy_title
from tests.helpers.rating_folders import FILMS, WRITERS, draw_ratings, write_atomic, write_csv, write_original

RATINGS = draw_ratings()


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_films_and_ratings(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, RATINGS)
    data = read_movielens(tmp_path)
    films = data.catalogue.films
    assert films["item_id"].tolist() == [str(film[0]) for film in FILMS]
    titles = films["title"].tolist()
    assert titles[:4] == ["The Amber Orchard", "Café of Dunmarrow", "Crooked Comet", "La Promesse"]
    assert titles[4:] == ["Seven Nights, Two Doors", "Untold", "Paper Kite", "Quiet Vault"]
    assert films["year"].tolist() == [film[2] for film in FILMS]
    assert films["genres"].tolist()[:3] == [
        ("comedy", "romance"),
        ("drama",),
        ("science fiction", "thriller"),
    ]
    assert films["genres"].tolist()[3:6] == [("drama", "war"), ("film noir",), ()]
    row = {film[0]: i for i, film in enumerate(FILMS)}
    expected = sorted((str(u), time, row[i], stars) for u, i, stars, time in RATINGS)
    ids = pd.Series(data.user_ids)[data.ratings["user"]]
    columns = (data.ratings[name] for name in ("timestamp", "item", "stars"))
    assert sorted(zip(ids, *columns, strict=True)) == expected


def test_real_films_have_cards_without_invented_facts(tmp_path: Path) -> None:
    write_original(tmp_path, RATINGS)
    catalogue = read_movielens(tmp_path).catalogue
    assert dict(catalogue.card(0).facts) == {
        "year": "1994",
        "genre": "comedy and romance",
        "era": "the nineties",
    }
    assert {name.partition("=")[0] for name in catalogue.feature_names} == {"genre", "era"}
    assert catalogue.has_genre("thriller").sum() == 2


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ("Godfather, The (1972)", ("The Godfather", "1972")),
        ("Seven (Se7en) (1995)", ("Seven", "1995")),
        ("Postino, Il", ("Il Postino", "")),
        ("Associé, L' (1996)", ("L'Associé", "1996")),
        ("Good, The Bad and The Ugly, The (1966)", ("The Good, The Bad and The Ugly", "1966")),
        ("Cry, the Beloved Country (1995)", ("Cry, the Beloved Country", "1995")),
        ("(500) Days of Summer (2009)", ("(500) Days of Summer", "2009")),
        ("Long Series (2006-2007)", ("Long Series", "2006")),
        ("(1984)", ("", "1984")),
    ],
)
def test_titles_are_as_people_say_them(raw: str, tidy: tuple[str, str]) -> None:
    assert tidy_title(raw) == tidy


def test_stars_become_levels_and_half_stars_fall() -> None:
    stars = np.array([0.5, 1.0, 1.5, 2.0, 3.5, 4.5, 5.0])
    assert level_of_stars(stars).tolist() == [0, 0, 0, 1, 2, 3, 4]


def test_the_latest_of_repeated_ratings_counts_and_is_announced(tmp_path: Path) -> None:
    write_original(tmp_path, [(1, 1, 2.0, 500), (1, 1, 5.0, 900), (1, 1, 3.0, 700), (1, 2, 1.0, 600)])
    with pytest.warns(UserWarning, match=r"u\.data: 2 ratings were given again later"):
        data = read_movielens(tmp_path)
    assert data.ratings["stars"].tolist() == [1.0, 5.0]


def test_blank_lines_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    write_original(tmp_path, RATINGS)
    text = (tmp_path / "u.data").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "u.data").write_bytes(text + b"\r\n\n")
    assert len(read_movielens(tmp_path).ratings) == len(RATINGS)


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def truncate(name: str, lines: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        kept = (folder / name).read_text(encoding="utf-8").splitlines()[:lines]
        (folder / name).write_text("\n".join(kept), encoding="utf-8")

    return change


U, F, S, T = RATINGS[1]
SECOND = f"{U}\t{F}\t{S:g}\t{T}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace("toy.inter", SECOND, f"{U}\t{F}\tx\t{T}"), r"toy.inter row 3: `rating` must be .* got 'x'"),
        (replace("toy.inter", SECOND, f"{U}\t{F}\t7\t{T}"), r"toy.inter row 3: .*0.5 to 5; got '7'"),
        (replace("toy.inter", SECOND, f"{U}\t{F}\t\t{T}"), r"toy.inter row 3: `rating` .* got nan"),
        (replace("toy.inter", SECOND, f"{U}\t{F}\t3\tinf"), r"row 3: `timestamp` .* got 'inf'"),
        (replace("toy.inter", SECOND, f"\t{F}\t3\t{T}"), r"row 3: `user_id` must be an id; got nan"),
        (replace("toy.inter", SECOND, f"{U}\t777\t3\t{T}"), r"row 3: `item_id` .* list of films; got '777'"),
        (replace("toy.inter", SECOND, f"{U}\t{F}\t3"), r"toy.inter row 3: must have 4 columns; got 3"),
        (replace("toy.inter", SECOND, SECOND + "\t9"), r"toy.inter row 3: must have 4 columns; got 5"),
        (
            replace("toy.inter", "rating:float", "liked:float"),
            r"toy.inter row 1: must name .*rating.* got 'u",
        ),
        (truncate("toy.inter", 1), r"toy.inter: must hold at least one rating; got none"),
        (truncate("toy.inter", 0), r"toy.inter row 1: must name the columns .* got ''"),
        (truncate("toy.item", 1), r"toy.item: must hold at least one film; got none"),
        (truncate("toy.item", 0), r"toy.item row 1: must name the columns .* got \[\]"),
        (replace("toy.item", "\t1987", ""), r"toy.item row 3: must have 4 columns; got 3"),
        (replace("toy.item", "5\tCrooked", "2\tCrooked"), r"toy.item row 4: .* got '2' again after row 3"),
        (replace("toy.item", "Untold", " "), r"toy.item row 7: .* id and a title; got '12' and ' '"),
    ],
)
def test_a_malformed_row_is_named(change: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    write_atomic(tmp_path, RATINGS)
    change(tmp_path)
    with pytest.raises(CatalogueError, match=words):
        read_movielens(tmp_path)


def test_csv_films_need_their_header_and_closed_quotes(tmp_path: Path) -> None:
    write_csv(tmp_path, RATINGS)
    films = tmp_path / "movies.csv"
    text = films.read_text(encoding="utf-8")
    films.write_text(text.split("\n", 1)[1], encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"movies.csv row 1: must name .* got \['1', 'Amber Orchard"):
        read_movielens(tmp_path)
    films.write_text(text.replace("Crooked", '"Crooked') + "x" * 140_000, encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"movies.csv row \d+: must be"):
        read_movielens(tmp_path)
    films.write_text(text + '99,"' + "x" * 140_000, encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"comma-separated; got: field larger than field limit"):
        read_movielens(tmp_path)


def test_a_folder_that_holds_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"must exist; got `.*nowhere`"):
        read_movielens(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CatalogueError, match=r"u.data with u.item.* with \['notes.txt'\]"):
        read_movielens(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_original(tmp_path, RATINGS)
    (tmp_path / "u.data").unlink()
    (tmp_path / "u.data").mkdir()
    with pytest.raises(CatalogueError, match=r"u.data must be a readable file; got: Is a directory"):
        read_movielens(tmp_path)
