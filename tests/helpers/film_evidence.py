"""What the film world's users do, as an audit reads it: real ones, the same people again, and a yes-man."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.types import histories_from_log
from simulators.chat.model import Completion, Message
from simulators.prompts import COMPLAINT_WORDS, LEVEL_WORDS
from simulators.rollout import rollout
from simulators.transcripts import dialogue_to_json
from simulators.types import Dialogue, Feedback, ItemCard, StopReason, Utterance
from simulators.users.baselines import RuleUsers, agreeable_rule
from simulators.users.film_viewers import FilmViewers
from simulators.world import World, build_film_world
from simulators.world.language import opening, reaction
from tests.helpers.talking import SLOTS, reference_scale, talking_world

POLICIES = {"random": 0.0, "poor": 0.4, "fair": 0.8, "good": 1.4, "best": 2.5}
"""How much of a user's true utility each recommender sees, against noise of one standard deviation."""
FILMS = 300


class GrammarVoice:
    """Finds a viewer's words by the world's grammar, as the prompt tells it to."""

    slots = SLOTS

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
        schema: Any = None,
    ) -> list[Completion]:
        return [
            Completion(_say(conversation[-1]["content"], conversation[0]["content"], seed))
            for conversation, seed in zip(conversations, seeds, strict=True)
        ]


def _say(told: str, viewer: str, seed: int) -> str:
    rng = np.random.default_rng(seed)
    facts = tuple(name for name in ("genre", "mood") if f"<{name}>" in viewer)
    if told.startswith("(Say"):
        return opening(facts, rng)
    intent = told[told.rindex("(") + 1 : -1].split("; ")
    level = LEVEL_WORDS.index(intent[0])
    complaint = next((what for what, words in COMPLAINT_WORDS.items() if words in intent), None)
    return reaction(
        level, complaint, goes_on="ask for another film" in intent, facts=("title", *facts), rng=rng
    )


class YesMan:
    """Wraps viewers: whatever the reply, each loves it, rates it five stars and takes it at once."""

    def __init__(self, viewers: FilmViewers) -> None:
        self._viewers = viewers

    def open(self, users: Sequence[int], *, seed: int) -> list[Utterance]:
        return self._viewers.open(users, seed=seed)

    def react(
        self,
        dialogues: Sequence[Dialogue],
        cards: Sequence[ItemCard],
        replies: Sequence[Utterance],
        *,
        seed: int,
    ) -> list[Feedback]:
        words = Utterance("Perfect, I love it!", "Perfect, I love it!")
        found = self._viewers.react(dialogues, cards, replies, seed=seed)
        return [
            replace(one, level=4, satisfaction=5.0, utterance=words, complaint=None, stop=StopReason.ACCEPTED)
            for one in found
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewers, name)


@cache
def film_dialogues(
    users: int, seed: int, *, agreeable: bool = False, rule: bool = False
) -> tuple[dict[str, Any], ...]:
    """Transcripts of so many users of one population; another seed is the same people another time.

    Or of a yes-man in the place of each, or of the over-agreeable users that are there to be compared with.
    """
    world, agent, _ = talking_world(users)
    viewers = FilmViewers(world.oracle, reference_scale(), GrammarVoice())
    histories = histories_from_log(world.log, np.arange(users), len(world.catalogue))
    side: Any = YesMan(viewers) if agreeable else viewers
    if rule:
        wishes: dict[int, dict[str, str]] = {user: {} for user in range(users)}
        side = RuleUsers(agreeable_rule(), wishes, GrammarVoice())
    found = rollout(list(range(users)), agent, side, histories=histories, condition=None, seed=seed)
    return tuple(json.loads(json.dumps(dialogue_to_json(dialogue))) for dialogue in found)


@cache
def _world(users: int) -> World:
    return build_film_world(FILMS, users, seed=1)


def film_interactions(users: int, seed: int, *, agreeable: bool = False, slate: int = 10) -> pd.DataFrame:
    """Reactions of one population to slates of five recommenders; `seed` draws the reactions, not the slates."""
    world, parts = _world(users), []
    rng = np.random.default_rng(9)
    every, films = np.repeat(np.arange(users), FILMS), np.tile(np.arange(FILMS), users)
    utility = world.oracle.item_utility(every, films).reshape(users, FILMS)
    for number, (policy, sight) in enumerate(POLICIES.items()):
        shown = np.argsort(-(sight * utility + rng.normal(size=utility.shape)), axis=1)[:, :slate].ravel()
        who, position = np.repeat(np.arange(users), slate), np.tile(np.arange(slate), users)
        luck = np.random.default_rng((seed, number)).random(len(who))
        level = world.oracle.levels(who, shown, luck, position=position)
        parts.append(
            pd.DataFrame(
                {
                    "user_id": who, "item_id": shown, "level": np.full(len(who), 4) if agreeable else level,
                    "timestamp": 1_700_000_000 + 86_400 * number + position, "position": position, "policy": policy,
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def film_scenes(
    users: int, seed: int, *, options: int = 5, scenes: int = 3, sharpness: float = 1.0
) -> pd.DataFrame:
    """Choices out of lists by the true logit of utility, with probabilities that are right at a sharpness of 1."""
    world, rng = _world(users), np.random.default_rng(seed)
    n = users * scenes
    who = np.repeat(np.arange(users), scenes)
    shown = np.argsort(rng.random((n, FILMS)), axis=1)[:, :options]
    utility = world.oracle.item_utility(np.repeat(who, options), shown.ravel()).reshape(n, options)
    taken = (utility + rng.gumbel(size=utility.shape)).argmax(axis=1)
    said = np.exp(sharpness * utility)
    said /= said.sum(axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "scene_id": np.repeat(np.arange(n), options), "user_id": np.repeat(who, options),
            "slot": np.tile(np.arange(options), n), "item_id": shown.ravel(), "probability": said.ravel(),
            "chosen": (np.arange(options) == taken[:, None]).ravel().astype(int),
        }
    )  # fmt: skip


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
