"""Simulated users learned from a log: the fitted choice model decides, a chat model finds the words.

Each simulation draws one person from what is believed about each user, and keeps to it through the dialogue: over
seeds the levels are those of the fitted model, and within a seed a user is consistent. A log tells nothing of how a
reply was worded: without `Manners`, which choices between replies tell, wording neither pleases nor annoys these users,
and the level is the only sign of satisfaction. With them, how far wording counts beside the item is assumed, as neither
source tells it, until rated dialogues do (`Wording.fit`). With `LevelStories` a light model that tells how users decide
moves the probabilities of levels, as far as it was found to foretell real users better.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.chat.model import ChatModel
from simulators.errors import MirrorError
from simulators.grounding import reply_attributes
from simulators.mirror.level_model import LevelModel
from simulators.mirror.level_stories import LevelStories
from simulators.mirror.manner import Manners
from simulators.mirror.persons import draw_beliefs, draw_items, draw_tastes
from simulators.mirror.steps import Ints, Values
from simulators.mirror.wording import Wording
from simulators.randomness import keyed_seeds, keyed_uniforms
from simulators.types import (
    LEVELS,
    SUCCESS_LEVEL,
    Decision,
    Dialogue,
    Feedback,
    ItemCard,
    StopReason,
    Utterance,
)
from simulators.users.complaints import find_complaints
from simulators.users.film_viewers import open_dialogues, put_into_words
from simulators.world.catalogue import Catalogue
from simulators.world.wishes import draw_wishes

_WISH, _LEVEL, _WORDS, _OPENING = range(200, 204)
_MANNER, _RATING, _STORY = range(206, 209)
_IGNORED = 0
ASSUMED = Wording()


class MirrorUsers:
    """Users of a fitted `LevelModel`, ready to talk.

    Args:
        model: The fitted model, with the five levels of `simulators.types.LEVELS`.
        catalogue: The films it was fitted on, which give the wishes their words.
        chat: Finds the words.
        manners: What is believed of their taste in wording, a row a user of the log; None for no such taste.
        wording: How far wording counts beside the film; not read without `manners`.
        stories: Move the probabilities of levels by what a light model tells, a history a user of the log; None leaves
            them to the choice model.
        patience: Ignored films after which a user leaves, at least 1; a log does not tell it.
        max_turns: Turns after which a dialogue ends.

    Raises:
        MirrorError: The model has other levels or other items.
    """

    def __init__(
        self,
        model: LevelModel,
        catalogue: Catalogue,
        chat: ChatModel,
        *,
        manners: Manners | None = None,
        wording: Wording = ASSUMED,
        stories: LevelStories | None = None,
        patience: int = 4,
        max_turns: int = 5,
    ) -> None:
        if model.n_levels != len(LEVELS) or model.features.shape != catalogue.features.shape:
            raise MirrorError(
                f"`model` must have {len(LEVELS)} levels and be fitted on the catalogue's features, "
                f"{catalogue.features.shape}; got {model.n_levels} levels and {model.features.shape}. Fit it on a log "
                "of this catalogue."
            )
        self._model = model
        self._catalogue = catalogue
        self._chat = chat
        self._manners = manners
        self._wording = wording
        self._stories = stories
        self._patience = patience
        self._max_turns = max_turns

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        """What each user says first."""
        seeds = keyed_seeds(seed, np.asarray(users), _OPENING)
        return open_dialogues(self._chat, self._wishes(users, seed), seeds=seeds)

    def decide(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Decision]:
        """Decide about one film and its reply a row; the same user, turn and seed meet the same luck whatever is shown.

        Args:
            dialogues: As they stood before the reply; only the user and the number of turns matter.
            cards: Item shown.
            replies: Reply shown; not read without `manners`.
            seed: Seed of the simulation.
        """
        who = np.asarray([dialogue.user for dialogue in dialogues], np.int64)
        when = np.asarray([len(dialogue.turns) for dialogue in dialogues], np.int64)
        what = np.asarray([card.item for card in cards], np.int64)
        utility = self._utility(who, what, seed)
        if self._manners is None:
            levels = self._levels(who, when, cards, utility, np.zeros(len(who)), seed=seed)
            return [
                # Levels 0..4 on the scale of stars.
                Decision(int(level), 1.0 + float(level), None, float(worth))
                for level, worth in zip(levels, utility, strict=True)
            ]
        attributes = self._manners.scale(reply_attributes(replies, cards))
        worth = self._manners.contributions(
            draw_beliefs(self._manners.weights, who, seed, _MANNER), attributes
        )
        total = worth.sum(axis=1)
        levels = self._levels(who, when, cards, utility, self._wording.shift(total), seed=seed)
        stars = self._wording.rate(utility, total, keyed_uniforms(seed, who, when, _RATING))
        complaints = find_complaints(worth, attributes, stars)
        return [
            Decision(int(level), float(star), complaint, float(value))
            for level, star, complaint, value in zip(levels, stars, complaints, utility + total, strict=True)
        ]

    def level_probabilities(
        self, users: ArrayLike, items: ArrayLike, *, position: ArrayLike = 0, seed: int
    ) -> Values:
        """P(level = k) of the person that the seed drew for each user, with no reply. Shape (B, K), rows sum to 1.

        Args:
            users: Rows of the users. Shape (B,).
            items: Rows of the items. Shape (B,).
            position: 0-based place in a slate, one for all or shape (B,).
            seed: Seed of the simulation.
        """
        utility = self._utility(np.asarray(users, np.int64), np.asarray(items, np.int64), seed)
        return self._model.choice.probabilities(utility, position=position)

    def react(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Feedback]:
        """Decide about one film a dialogue and say so in words."""
        users = [dialogue.user for dialogue in dialogues]
        turns = [len(dialogue.turns) for dialogue in dialogues]
        decisions = self.decide(dialogues, cards, replies, seed=seed)
        stops = [self._stop(d, made) for d, made in zip(dialogues, decisions, strict=True)]
        seeds = keyed_seeds(seed, np.asarray(users), np.asarray(turns), _WORDS)
        wishes = self._wishes(users, seed)
        return put_into_words(self._chat, wishes, cards, replies, decisions, stops=stops, seeds=seeds)

    def _levels(
        self, who: Ints, when: Ints, cards: Sequence[ItemCard], utility: Values, shift: Values, *, seed: int
    ) -> Ints:
        """Level of each row; a user and turn meet the same luck, and the same seeds of stories, whatever is shown.

        Args:
            who: Rows of the users. Shape (B,).
            when: Turns. Shape (B,).
            cards: Item shown.
            utility: Of each item. Shape (B,).
            shift: What the wording adds to each step, in logits. Shape (B,).
            seed: Seed of the simulation.
        """
        luck = keyed_uniforms(seed, who, when, _LEVEL)
        if self._stories is None:
            return self._model.choice.sample(utility, luck, shift=shift)
        base = self._model.choice.probabilities(utility, shift=shift)
        moved = self._stories.moved(base, who.tolist(), cards, seeds=keyed_seeds(seed, who, when, _STORY))
        reach = 1.0 - moved[:, :-1].cumsum(axis=1)
        return np.asarray((luck[:, None] < reach).sum(axis=1), np.int64)

    def _utility(self, users: NDArray[np.int64], items: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        """Utility of each film to the person that the seed drew for its user. Shape (B,)."""
        vectors, effects = draw_items(self._model, items, seed)
        utility: NDArray[np.float64] = (draw_tastes(self._model, users, seed) * vectors).sum(axis=1) + effects
        return utility

    def _wishes(self, users: Sequence[int], seed: int) -> list[Mapping[str, str]]:
        who = np.asarray(users, np.int64)
        tastes = draw_tastes(self._model, who, seed)
        draws = keyed_uniforms(seed, who, _WISH)
        return [*draw_wishes(self._catalogue, tastes, self._model.users.mean, draws)]

    def _stop(self, dialogue: Dialogue, made: Decision) -> StopReason | None:
        if made.level >= SUCCESS_LEVEL:
            return StopReason.ACCEPTED
        ignored = sum(turn.feedback.level == _IGNORED for turn in dialogue.turns) + (made.level == _IGNORED)
        if ignored >= self._patience:
            return StopReason.OUT_OF_PATIENCE
        return StopReason.MAX_TURNS if len(dialogue.turns) + 1 >= self._max_turns else None
