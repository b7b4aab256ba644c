"""Which item an agent brings next: the retriever's best of what the user has not met and has just asked for."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recsys.types import Retriever
from simulators.types import Dialogue, ItemCard, Utterance
from simulators.words import plural_of
from simulators.world.catalogue import Catalogue


class _Wish:
    """A kind of wish that users put into words, such as a genre: which words there are, and which films they mean."""

    def __init__(self, films_of: dict[str, NDArray[np.bool_]]) -> None:
        self._films_of = films_of
        self._name_of = {form: name for name in films_of for form in _spoken_forms(name)}
        forms = sorted(map(re.escape, self._name_of), key=len, reverse=True)
        self._pattern = re.compile(rf"\b({'|'.join(forms)})\b" if forms else r"(?!)", re.IGNORECASE)

    def films(self, spoken: Sequence[str]) -> NDArray[np.bool_] | bool:
        """Films of the wish named last; True, which allows all, if none was named. `spoken`: newest first."""
        for text in spoken:
            if found := self._pattern.findall(text):
                return self._films_of[self._name_of[found[-1].lower()]]
        return True


def _spoken_forms(name: str) -> tuple[str, ...]:
    """A wish's name as users say it: also in the plural, and science fiction also in short."""
    forms = name, plural_of(name)
    return (*forms, "sci-fi") if name == "science fiction" else forms


class ItemFinder:
    """Retrieval behind an agent, held to what its users say that they want.

    Args:
        catalogue: The items.
        retriever: Ranks items by a user's history.
    """

    def __init__(self, catalogue: Catalogue, retriever: Retriever) -> None:
        self.catalogue = catalogue
        self._retriever = retriever
        moods = catalogue.films["mood"]
        self._wishes = (
            _Wish({genre.lower(): catalogue.has_genre(genre) for genre in catalogue.genres}),
            _Wish({str(mood).lower(): (moods == mood).to_numpy(bool) for mood in moods.dropna().unique()}),
        )

    def choose(
        self, dialogues: Sequence[Dialogue], said: Sequence[Utterance], histories: csr_array
    ) -> list[ItemCard]:
        """The best item that each user has not met, of the genre and the mood that the user last named, if any.

        Where no such film is left, the mood is given up first, then the genre.

        Args:
            dialogues: B dialogues so far.
            said: What each user said last.
            histories: What is known of each user. Shape (B, I), level + 1 where an item was met.
        """
        allowed = np.ones((len(dialogues), len(self.catalogue)), dtype=bool)
        starts, met = histories.indptr, histories.indices
        for row, (dialogue, words) in enumerate(zip(dialogues, said, strict=True)):
            allowed[row, [turn.card.item for turn in dialogue.turns]] = False
            allowed[row, met[starts[row] : starts[row + 1]]] = False
            spoken = _without_titles(dialogue, words)
            for wish in self._wishes:
                narrowed = allowed[row] & wish.films(spoken)
                allowed[row] = narrowed if narrowed.any() else allowed[row]
        best = self._retriever.search(histories, 1, allowed=allowed).items[:, 0]
        return [self.catalogue.card(int(item)) for item in best]


def _without_titles(dialogue: Dialogue, words: Utterance) -> list[str]:
    """What the user said, newest first, less the titles: "True Romance" is no wish for romance."""
    spoken = [words.text, *(turn.user.text for turn in reversed(dialogue.turns))]
    for turn in dialogue.turns:
        spoken = [text.replace(turn.card.title, " ") for text in spoken]
    return spoken
