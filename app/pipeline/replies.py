"""Stage "replies": a pool of the base model's own replies, measured, to be compared and learned from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from app.files import read_json, read_tensors, write_arrays, write_json
from app.pipeline.context import RunContext
from persona.features import SURFACE_NAMES, Featurizer, surface_features
from persona.policy.conditioned import ConditionedPolicy
from persona.rewards.attributes import ATTRIBUTES, AttributeScale
from recsys.columns import ITEM
from simulators.grounding import banned_slots, fill, reply_attributes, slot_values, whole_sentences
from simulators.prompts import Message, recommender_prompt
from simulators.randomness import keyed_seeds
from simulators.types import SUCCESS_LEVEL, Decision, Feedback, ItemCard, Turn, Utterance
from simulators.users.film_viewers import open_dialogues, say_reactions

_TRAIN_SHARE = 0.75
_HIDDEN_DIM = 24


class ReplyPool(NamedTuple):
    """Replies of the base model to many prompts, `replies_per_prompt` each, grouped by prompt.

    prompts: The conversations, one a prompt.
    cards: Item row of each prompt's card.
    openings: What the user had said, one a prompt.
    replies: All replies, prompt after prompt.
    prompt_of: Row of the prompt of each reply. Shape (N,).
    attributes: Standardised attributes of each reply. Shape (N, A).
    features: What rewards are linear in. Shape (N, D), float32.
    is_train: Whether a prompt may be trained on; the others are for measuring alone. Shape (prompts,).
    scale: How attributes were standardised.
    """

    prompts: list[list[Message]]
    cards: list[int]
    openings: list[Utterance]
    replies: list[Utterance]
    prompt_of: NDArray[np.int64]
    attributes: NDArray[np.float64]
    features: torch.Tensor
    is_train: NDArray[np.bool_]
    scale: AttributeScale


def base_policy(run: RunContext, latent_dim: int | None = None) -> ConditionedPolicy:
    """A policy that still behaves exactly like the base model.

    Args:
        run: The run.
        latent_dim: Size of the latents that it is to be trained on; None takes what the configuration asks for.
    """
    return ConditionedPolicy.build(
        run.language_model,
        latent_dim=run.config.latent_dim if latent_dim is None else latent_dim,
        direction_dim=len(ATTRIBUTES),
        rank=run.config.rank,
        seed=run.seed("policy weights"),
    )


def sample_replies(run: RunContext, out: Path) -> None:
    """Let users ask, draw a film for each, and sample the base model's replies."""
    config, catalogue = run.config, run.world.catalogue
    rng = run.rng("replies")
    items = run.world.log[ITEM].to_numpy()[rng.integers(len(run.world.log), size=config.prompts)]
    cards = [catalogue.card(int(item)) for item in items]
    policy = base_policy(run)
    prompts, openings = _ask(run, policy, cards, rng)
    prompt_of = np.repeat(np.arange(config.prompts), config.replies_per_prompt)
    conversations, shown = [prompts[i] for i in prompt_of], [cards[i] for i in prompt_of]
    seeds = keyed_seeds(run.seed("reply sampling"), np.arange(len(prompt_of)))
    replies = _reply(run, policy, conversations, shown, seeds)
    raw = [reply.raw for reply in replies]
    measured = reply_attributes(replies, shown)
    is_train = split_prompts(prompts, _TRAIN_SHARE, rng)
    kept = is_train[prompt_of]
    scale = AttributeScale.fit(measured[kept])
    hidden = policy.hidden_states(conversations, raw)
    blocks = feature_blocks(raw, hidden)
    featurizer = Featurizer.fit(
        {name: block[torch.from_numpy(kept)] for name, block in blocks.items()},
        components={"hidden": _HIDDEN_DIM},
        columns={"surface": SURFACE_NAMES},
    )
    featurizer.save(out / "featurizer")
    write_json(
        out / "replies.json",
        {
            "prompts": prompts,
            "cards": items.tolist(),
            "openings": [tuple((said.raw, said.text)) for said in openings],
            "replies": [(reply.raw, reply.text) for reply in replies],
        },
    )
    write_arrays(
        out / "replies.safetensors",
        {
            "prompt_of": prompt_of,
            "attributes": scale(measured),
            "features": featurizer.transform(blocks),
            "is_train": is_train,
            "scale_mean": scale.mean,
            "scale_std": scale.std,
        },
    )


def feature_blocks(raw: Sequence[str], hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    """Raw features of replies: counts, and the base model's states."""
    return {"surface": torch.from_numpy(surface_features(raw)), "hidden": hidden}


def split_prompts(
    prompts: Sequence[Sequence[Message]], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """True for about `share` of the prompts; prompts of equal text are never on both sides. Shape (prompts,)."""
    _, text_of = np.unique([json.dumps(prompt) for prompt in prompts], return_inverse=True)
    texts = rng.permutation(text_of.max() + 1)
    return np.asarray(texts[text_of] < round(share * len(texts)))


def _ask(
    run: RunContext, policy: ConditionedPolicy, cards: Sequence[ItemCard], rng: np.random.Generator
) -> tuple[list[list[Message]], list[Utterance]]:
    """One conversation for each card that ends with a user's words: half of them first turns, half second turns."""
    oracle, slots = run.world.oracle, run.language_model.slots
    first = [run.world.catalogue.card(int(item)) for item in rng.permutation([card.item for card in cards])]
    askers = rng.choice(run.groups.learners, len(cards))
    seed = run.seed("reply openings")
    wishes = oracle.wish(askers, rng.random(len(askers)))
    said = open_dialogues(run.chat, wishes, seeds=keyed_seeds(seed, np.arange(len(cards))), temperature=1.0)
    earlier = [
        recommender_prompt((), s.raw if slots else s.text, c, slots) for s, c in zip(said, first, strict=True)
    ]
    answers = _reply(run, policy, earlier, first, keyed_seeds(seed, np.arange(len(cards)), 1))
    levels = rng.integers(SUCCESS_LEVEL, size=len(cards)).tolist()
    decisions = [Decision(level, 3.0, None, 0.0) for level in levels]
    back = say_reactions(
        run.chat,
        wishes,
        first,
        answers,
        decisions,
        goes_on=[True] * len(cards),
        seeds=keyed_seeds(seed, np.arange(len(cards)), 2),
    )
    prompts, openings = [], []
    for row, card in enumerate(cards):
        history: tuple[Turn, ...] = ()
        words = said[row]
        if row % 2:
            history = (Turn(said[row], first[row], answers[row], Feedback(levels[row], 3.0, back[row])),)
            words = back[row]
        prompts.append(recommender_prompt(history, words.raw if slots else words.text, card, slots))
        openings.append(words)
    return prompts, openings


def _reply(
    run: RunContext,
    policy: ConditionedPolicy,
    conversations: Sequence[Sequence[Message]],
    cards: Sequence[ItemCard],
    seeds: Sequence[int],
) -> list[Utterance]:
    """One reply of the base model to each conversation, at temperature 1."""
    slots = run.language_model.slots
    raw = policy.generate(
        conversations,
        seeds=seeds,
        max_new_tokens=run.config.reply_tokens,
        temperature=1.0,
        banned=[banned_slots(slot_values(card), slots) for card in cards],
    )
    return [fill(whole_sentences(text), slot_values(card)) for text, card in zip(raw, cards, strict=True)]


def load_replies(run: RunContext) -> ReplyPool:
    """The pool that the finished stage left."""
    texts = read_json(run.stage("replies") / "replies.json")
    tensors = read_tensors(run.stage("replies") / "replies.safetensors")
    return ReplyPool(
        prompts=texts["prompts"],
        cards=texts["cards"],
        openings=[Utterance(*pair) for pair in texts["openings"]],
        replies=[Utterance(*pair) for pair in texts["replies"]],
        prompt_of=tensors["prompt_of"].numpy(),
        attributes=tensors["attributes"].numpy(),
        features=tensors["features"],
        is_train=tensors["is_train"].numpy(),
        scale=AttributeScale(tensors["scale_mean"].numpy(), tensors["scale_std"].numpy()),
    )


def load_featurizer(run: RunContext) -> Featurizer:
    """What turns a reply into features."""
    return Featurizer.load(run.stage("replies") / "featurizer", columns={"surface": SURFACE_NAMES})
