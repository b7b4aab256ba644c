"""Stage "replies": a pool of the base model's own replies, measured, to be compared and learned from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from app.files import read_json, read_tensors, write_arrays, write_json
from app.pipeline.context import RunContext
from persona.features import TextFeaturizer
from persona.policy.conditioned import ConditionedPolicy
from persona.rewards.attributes import ATTRIBUTES, AttributeScale
from simulators.grounding import banned_slots, fill, reply_attributes, slot_values, whole_sentences
from simulators.prompts import Message, recommender_prompt
from simulators.randomness import keyed_seeds
from simulators.types import Utterance
from simulators.users.film_viewers import open_dialogues

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


def base_policy(run: RunContext) -> ConditionedPolicy:
    """A policy that still behaves exactly like the base model."""
    return ConditionedPolicy.build(
        run.language_model,
        latent_dim=run.config.latent_dim,
        direction_dim=len(ATTRIBUTES),
        rank=run.config.rank,
        seed=run.seed("policy weights"),
    )


def sample_replies(run: RunContext, out: Path) -> None:
    """Let users ask, draw a film for each, and sample the base model's replies."""
    config, catalogue = run.config, run.world.catalogue
    rng = run.rng("replies")
    askers = rng.choice(run.groups.learners, config.prompts)
    openings = open_dialogues(run.world.oracle, run.chat, askers.tolist(), seed=run.seed("reply openings"))
    items = run.world.log["item_id"].to_numpy()[rng.integers(len(run.world.log), size=config.prompts)]
    cards = [catalogue.card(int(item)) for item in items]
    slots = run.language_model.slots
    prompts = [
        recommender_prompt((), said.raw if slots else said.text, card, slots)
        for said, card in zip(openings, cards, strict=True)
    ]
    policy = base_policy(run)
    per_prompt = config.replies_per_prompt
    prompt_of = np.repeat(np.arange(config.prompts), per_prompt)
    conversations = [prompts[i] for i in prompt_of]
    raw = policy.generate(
        conversations,
        seeds=keyed_seeds(run.seed("reply sampling"), np.arange(len(prompt_of))),
        max_new_tokens=config.reply_tokens,
        temperature=1.0,
        banned=[banned_slots(slot_values(cards[i]), slots) for i in prompt_of],
    )
    raw = [whole_sentences(text) for text in raw]
    shown = [cards[i] for i in prompt_of]
    replies = [fill(text, slot_values(card)) for text, card in zip(raw, shown, strict=True)]
    measured = reply_attributes(replies, shown)
    is_train = rng.permutation(config.prompts) < round(_TRAIN_SHARE * config.prompts)
    kept = is_train[prompt_of]
    scale = AttributeScale.fit(measured[kept])
    hidden = policy.hidden_states(conversations, raw)
    featurizer = TextFeaturizer.fit(
        [text for text, keep in zip(raw, kept, strict=True) if keep], hidden[kept], hidden_dim=_HIDDEN_DIM
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
            "features": featurizer.transform(raw, hidden),
            "is_train": is_train,
            "scale_mean": scale.mean,
            "scale_std": scale.std,
        },
    )


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


def load_featurizer(run: RunContext) -> TextFeaturizer:
    """What turns a reply into features."""
    return TextFeaturizer.load(run.stage("replies") / "featurizer")
