"""A film world with scripted voices: whole dialogues in milliseconds, without any language model."""

from collections.abc import Collection, Sequence

import numpy as np

from persona.rewards.attributes import AttributeScale, measure_attributes
from persona.types import Condition, Conversation
from recsys.models.popularity import Popularity
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.chat.model import ScriptedChat
from simulators.users.film_viewers import FilmViewers
from simulators.world import World, build_film_world
from simulators.world.language import CARD_SLOTS, Situation, reply, sample_style

SLOTS = frozenset(f"<{name}>" for name in CARD_SLOTS)


class GrammarPolicy:
    """Words replies by the world's grammar, in a style that follows the direction where there is one."""

    slots = SLOTS

    def generate(
        self,
        conversations: Sequence[Conversation],
        condition: Condition | None = None,
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        top_p: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
    ) -> list[str]:
        hidden = banned or [()] * len(seeds)
        said = []
        for row, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            style = sample_style(rng)
            if condition is not None and condition.direction[row].any():
                style = dict(zip(style, condition.direction[row].tolist(), strict=True))
            facts = frozenset(name for name in CARD_SLOTS if f"<{name}>" not in hidden[row])
            said.append(reply(style, Situation(facts), rng))
        return said


def reference_scale() -> AttributeScale:
    rng = np.random.default_rng(0)
    everything = Situation(frozenset(CARD_SLOTS))
    return AttributeScale.fit(
        measure_attributes([reply(sample_style(rng), everything, rng) for _ in range(300)])
    )


def talking_world(users: int = 60) -> tuple[World, Recommender, FilmViewers]:
    """A small world, an agent and viewers who can talk."""
    world = build_film_world(300, users, seed=1)
    histories = histories_from_log(world.log, np.arange(users), len(world.catalogue))
    agent = Recommender(world.catalogue, Popularity.fit(histories), GrammarPolicy())  # type: ignore[arg-type]
    chat = ScriptedChat(lambda conversation: f"I want something <genre>. {len(conversation)}", SLOTS)
    return world, agent, FilmViewers(world.oracle, reference_scale(), chat)
