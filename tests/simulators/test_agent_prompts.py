"""What reaches the agent of a rollout is what users said, what it said itself, and the card: no persona, no secret."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from persona.types import Conversation
from recsys.models.popularity import Popularity
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.checks import check_simulated_user
from simulators.grounding import render_card
from simulators.mirror import fit_levels
from simulators.prompts import RECOMMENDER, Message
from simulators.protocols import SimulatedUser
from simulators.types import Dialogue, ItemCard, Utterance
from simulators.users.ailo import AiloUsers
from simulators.users.ailo_prompts import persona_block
from simulators.users.ailo_types import AiloConfig, Form
from simulators.users.baselines import RuleUsers, agreeable_rule, random_rule, wish_of
from simulators.users.disclosure import tellables
from simulators.users.film_viewers import FilmViewers
from simulators.users.mirror import MirrorUsers
from simulators.users.persona_building import targets_of
from simulators.users.persona_prompt import PersonaPromptUsers
from simulators.users.personas import Persona
from simulators.users.target_holders import TargetHolders
from simulators.users.title_guard import names_title
from tests.helpers.actor import Actor
from tests.helpers.film_evidence import GrammarVoice
from tests.helpers.persona_users import persona_world, talk
from tests.helpers.talking import GrammarPolicy, reference_scale

WORLD, _, PLAIN = persona_world()
USERS = list(range(30))
TARGETS = targets_of(WORLD.catalogue, [7 * user + 3 for user in USERS])
PERSONAS = [p.model_copy(update={"target": t}) for p, t in zip(PLAIN, TARGETS, strict=False)]
GOSSIP = Actor(indiscretion=0.8)

KINDS: dict[str, Callable[[], SimulatedUser]] = {
    "five calls": lambda: AiloUsers(PERSONAS, GOSSIP, AiloConfig(form=Form.FIVE_CALLS)),
    "merged": lambda: AiloUsers(PERSONAS, GOSSIP, AiloConfig(form=Form.MERGED)),
    "persona prompt": lambda: PersonaPromptUsers(PERSONAS, GOSSIP),
    "target holder": lambda: TargetHolders({p.user: p.target for p in PERSONAS if p.target}, GOSSIP),
    "random": lambda: RuleUsers(random_rule(), {p.user: wish_of(p) for p in PERSONAS}, GrammarVoice()),
    "over-agreeable": lambda: RuleUsers(
        agreeable_rule(), {p.user: wish_of(p) for p in PERSONAS}, GrammarVoice()
    ),
    "viewers": lambda: FilmViewers(WORLD.oracle, reference_scale(), GrammarVoice()),
    "learned": lambda: MirrorUsers(
        fit_levels(
            WORLD.log, WORLD.catalogue.features, n_users=WORLD.n_users, n_factors=0, iterations=2, seed=0
        ),
        WORLD.catalogue,
        GrammarVoice(),
    ),
}


GOSSIPS = ("five calls", "merged", "persona prompt", "target holder")
"""Kinds whose words come from a model that tells secrets."""


class OpenPolicy(GrammarPolicy):
    """A policy that keeps every conversation that it is asked to answer, and copies facts or leaves slots."""

    def __init__(self, slots: Collection[str]) -> None:
        self.slots = frozenset(slots)
        self.asked: list[Conversation] = []

    def generate(self, conversations: Sequence[Conversation], *args: Any, **settings: Any) -> list[str]:
        self.asked += conversations
        return super().generate(conversations, *args, **settings)


class TracingRecommender(Recommender):
    """Remembers which user each prompt was written for."""

    def __init__(self, policy: OpenPolicy, gossip: Callable[[int], str] = lambda user: "") -> None:
        histories = histories_from_log(WORLD.log, USERS, len(WORLD.catalogue))
        super().__init__(WORLD.catalogue, Popularity.fit(histories), policy)  # type: ignore[arg-type]
        self._gossip = gossip
        self.prompts: list[tuple[int, list[Message]]] = []

    def prompt(self, dialogue: Dialogue, said: Utterance, card: ItemCard) -> list[Message]:
        prompt = super().prompt(dialogue, said, card)
        if known := self._gossip(dialogue.user):
            prompt[0] = {**prompt[0], "content": f"{prompt[0]['content']}\n{known}"}
        self.prompts.append((dialogue.user, prompt))
        return prompt


def unexplained(prompt: Sequence[Message], dialogue: Dialogue, slots: Collection[str]) -> str:
    """What of a prompt is neither said in the dialogue, nor on its cards, nor the agent's own instruction."""
    known = [RECOMMENDER]
    for turn in dialogue.turns:
        known += [
            turn.user.raw,
            turn.user.text,
            turn.reply.raw,
            turn.reply.text,
            render_card(turn.card, slots),
        ]
    if dialogue.said is not None:
        known += [dialogue.said.raw, dialogue.said.text]
    left = "\n".join(message["content"] for message in prompt)
    for text in sorted(known, key=len, reverse=True):
        left = left.replace(text, "")
    return left.strip()


@pytest.mark.parametrize("slots", [(), GrammarPolicy.slots], ids=["copies facts", "leaves slots"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_agent_is_told_what_was_said_and_the_card_and_nothing_else(
    kind: str, slots: Collection[str]
) -> None:
    policy = OpenPolicy(slots)
    agent = TracingRecommender(policy)
    found = {d.user: d for d in talk(WORLD, agent, KINDS[kind](), USERS)}
    assert len(agent.prompts) >= len(USERS)
    assert all(conversation in [prompt for _, prompt in agent.prompts] for conversation in policy.asked)
    for user, prompt in agent.prompts:
        assert unexplained(prompt, found[user], slots) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_no_title_reaches_the_agent_before_it_has_shown_it(kind: str) -> None:
    agent = TracingRecommender(OpenPolicy(()))
    talk(WORLD, agent, KINDS[kind](), USERS)
    shown: dict[int, str] = {}
    for user, prompt in agent.prompts:
        title = PERSONAS[user].target.title  # type: ignore[union-attr]
        own = [message["content"].rpartition("\nCard: ") for message in prompt if message["role"] == "user"]
        heard = shown.get(user, "")
        assert title in heard or not any(names_title(said or whole, title) for said, _, whole in own)
        shown[user] = heard + own[-1][2]


def test_a_prompt_that_tells_of_a_persona_is_caught() -> None:
    def persona_lines(user: int) -> str:
        return persona_block(PERSONAS[user])

    def hidden_fact(user: int) -> str:
        return tellables(PERSONAS[user])[-1].text

    for gossip in (persona_lines, hidden_fact):
        agent = TracingRecommender(OpenPolicy(()), gossip)
        found = {d.user: d for d in talk(WORLD, agent, KINDS["merged"](), USERS[:5])}
        assert all(unexplained(prompt, found[user], ()) == gossip(user) for user, prompt in agent.prompts)


def test_scores_and_reasons_do_not_reach_the_agent() -> None:
    agent = TracingRecommender(OpenPolicy(()))
    found = talk(WORLD, agent, KINDS["merged"](), USERS)
    reasons = {
        reason
        for d in found
        for turn in d.turns
        if turn.feedback.confirmation
        for reason in turn.feedback.confirmation.reasons.values()
    }
    assert reasons
    everything = "\n".join(message["content"] for _, prompt in agent.prompts for message in prompt)
    assert not any(reason in everything for reason in reasons)


@pytest.mark.parametrize("kind", KINDS)
def test_users_keep_the_promises_of_the_engine_and_their_secrets(kind: str) -> None:
    cards = [WORLD.catalogue.card(item) for item in range(100, 105)]
    hidden = {p.user: [p.target.title, *persona_block(p).split("\n")] for p in PERSONAS if p.target}
    found = check_simulated_user(KINDS[kind](), USERS[:6], cards, max_turns=5, seed=2, hidden=hidden)
    masked = any(turn.user.masked for dialogue in found for turn in dialogue.turns)
    assert masked == (kind in GOSSIPS)


def test_personas_here_have_secrets_to_keep() -> None:
    assert all(isinstance(p, Persona) and p.target is not None and p.interests for p in PERSONAS)
