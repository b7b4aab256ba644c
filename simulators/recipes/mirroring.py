"""Trains a light model to tell how users decide: imitation of the rationales that teach, then DPO on pairs of them.

After UserMirrorer (arXiv 2508.18142): a reader scores the options given each of a strong and a weak model's rationales;
scenes are taken where the strong model's leave it much surer (`select_examples`); of each the surest rationale that
leads to what was really taken is learned, first by itself, then over the surest that misleads (`train_light_model`).
Departures, each with its reason:

1. A LoRA on the frozen base takes the place of full fine-tuning, through the trainers of every other policy here; its
   learning rates are then higher than the published ones, which are the defaults below.
2. Where a rationale came out of form, another of the same scene stands in for it; the published code fails.
3. The label behind a rationale is the option that its thoughts led the reader to, not the one that its writer named,
   so that a pair never rewards a story that ends otherwise than it goes.
4. Learning rates fall as a cosine, which `imitate` and `train_policy` do for all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from persona.policy.conditioned import ConditionedPolicy
from persona.recipes.imitation import ImitationConfig, imitate
from persona.recipes.policy import PolicyConfig, PreferencePairs, Report, steps_for, train_policy
from persona.types import Condition
from simulators.errors import MirrorError
from simulators.mirror.light_model import decision_prompt, decision_text
from simulators.mirror.rationales import (
    RationalePairs,
    pair_rationales,
    select_scenes,
    selection_gain,
)

Values = NDArray[np.float64]
Ints = NDArray[np.int64]

Labels = Sequence[Sequence[str]]
"""The labels of the options of each scene."""

Reader = Callable[[Sequence[str], Labels, Sequence[str]], Values]
"""P(option) given scenes, labels of their options and thoughts, one a row: `LightModel.score`, or `score_options` with
a model."""

Stories = Sequence[Sequence[str | None]]
"""The thoughts of D rationales of each scene; None for one that came out of form. Scenes may have different D."""


class MirroringConfig(BaseModel):
    """Settings of `select_examples` and `train_light_model`; the defaults are published, for full fine-tuning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Scenes to learn from, at most.
    scenes: int = Field(default=10_000, ge=1)
    # Times that imitation goes through its rows.
    sft_epochs: float = Field(default=1.0, gt=0)
    # Peak learning rate of imitation.
    sft_lr: float = Field(default=2e-4, gt=0)
    # Times that DPO goes through its pairs; 0 leaves it out.
    dpo_epochs: float = Field(default=2.0, ge=0)
    # Peak learning rate of DPO.
    dpo_lr: float = Field(default=1e-5, gt=0)
    # Steps over which the learning rate of DPO rises.
    dpo_warmup_steps: int = Field(default=10, ge=0)
    # Pull towards the imitating model, 1 / nats.
    beta: float = Field(default=0.1, gt=0)
    # Decoupled decay of the LoRA in DPO.
    weight_decay: float = Field(default=0.05, ge=0)
    # Rows of imitation, or pairs of DPO, in a step.
    batch: int = Field(default=4, ge=1)


class DecisionScenes(NamedTuple):
    """Scenes in words, with what was really taken.

    texts: From `scene_text`. S of them.
    labels: Of the options of each: letters, or other texts that differ within a scene.
    taken: Slot of the option taken, choosing nothing being an option like others. Shape (S,).
    strata: What a selection is to be even over, such as the domain. Shape (S,).
    """

    texts: Sequence[str]
    labels: Labels
    taken: Ints
    strata: NDArray[np.generic]

    @property
    def n_options(self) -> Ints:
        """Number of options of each scene. Shape (S,)."""
        return np.asarray([len(own) for own in self.labels], np.int64)

    @classmethod
    def of(
        cls, texts: Sequence[str], labels: Labels, taken: ArrayLike, strata: ArrayLike | None = None
    ) -> "DecisionScenes":
        """Checked scenes; strata are the numbers of options where None.

        Raises:
            MirrorError: Parts of different lengths, or something taken that was not on offer.
        """
        counts, truth = np.asarray([len(own) for own in labels], np.int64), np.asarray(taken, np.int64)
        kinds = counts if strata is None else np.asarray(strata)
        sizes = len(texts), len(counts), len(truth), len(kinds)
        if len(set(sizes)) != 1:
            raise MirrorError(
                f"Scenes must have one text, list of labels, choice and stratum each; got {sizes}. Leave out scenes "
                "that lack a part."
            )
        wrong = (truth < 0) | (truth >= counts)
        if wrong.any():
            raise MirrorError(
                f"`taken` must be the slot of one of a scene's options; got {truth[wrong][:3].tolist()} of "
                f"{counts[wrong][:3].tolist()} options. Give choosing nothing an option of its own."
            )
        return cls(list(texts), list(labels), truth, kinds)

    def take(self, rows: Ints) -> "DecisionScenes":
        """Some of the scenes."""
        places = rows.tolist()
        texts, labels = [self.texts[row] for row in places], [self.labels[row] for row in places]
        return DecisionScenes(texts, labels, self.taken[rows], self.strata[rows])


class Examples(NamedTuple):
    """Decisions to learn from, as the light model would write them.

    rows: Which scenes they are of, by falling gain. E of them.
    texts: The scenes in words.
    chosen: Decisions that lead to what was taken.
    rejected: Decisions that do not.
    gain: How much surer the strong model's rationales left the reader, in nats. Shape (E,).
    missed: Scenes that no rationale of either model got right, and that nothing was learned from.
    """

    rows: Ints
    texts: list[str]
    chosen: list[str]
    rejected: list[str]
    gain: Values
    missed: int


def select_examples(
    scenes: DecisionScenes, strong: Stories, weak: Stories, reader: Reader, config: MirroringConfig
) -> Examples:
    """The scenes that teach, each with a decision to learn and one to unlearn.

    Args:
        scenes: Scenes of users who may be learned from.
        strong: Rationales of a model that decides well. A scene in which either model has none is left out.
        weak: Rationales of the light model as it is, or of another that decides badly.
        reader: Scores options given thoughts; the published one is the weak model.
        config: Settings.

    Raises:
        MirrorError: Not one list of rationales a scene, or no scene that has both decisions.
    """
    if not len(strong) == len(weak) == len(scenes.texts):
        raise MirrorError(
            f"`strong` and `weak` must have one list of rationales for each of {len(scenes.texts)} scenes; got "
            f"{len(strong)} and {len(weak)}. Use an empty list where there is none."
        )
    told = [[[story for story in own if story is not None] for own in stories] for stories in (strong, weak)]
    kept = np.asarray([row for row, both in enumerate(zip(*told, strict=True)) if all(both)], np.int64)
    scenes_kept = scenes.take(kept)
    filled = [_filled([own[row] for row in kept.tolist()]) for own in told]
    read = [_read(scenes_kept, stories, reader) for stories in filled] if len(kept) else []
    pairs = pair_rationales(read[0], read[1], scenes_kept.taken) if read else None
    if pairs is None or not pairs.usable.any():
        raise MirrorError(
            f"Some scene must have a rationale that leads the reader to what was taken and one that does not; got none "
            f"among {len(kept)} scenes with rationales of both models. Write more rationales, or let the reader learn "
            "the form first."
        )
    gain = selection_gain(read[1], read[0])
    rows = select_scenes(gain, scenes_kept.strata, pairs.usable, config.scenes)
    every = [[*a, *b] for a, b in zip(*filled, strict=True)]
    chosen, rejected = _decisions(scenes_kept, every, np.concatenate(read, axis=1), pairs, rows)
    texts = [scenes_kept.texts[row] for row in rows.tolist()]
    return Examples(kept[rows], texts, chosen, rejected, gain[rows], int(pairs.missed.sum()))


class Training(NamedTuple):
    """What training went through.

    imitation: Nats a token of each step.
    preference: Metrics of each step, as `train_policy` gives them.
    """

    imitation: list[float]
    preference: list[dict[str, float]]


def train_light_model(
    policy: ConditionedPolicy,
    examples: Examples,
    config: MirroringConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> Training:
    """Imitate the chosen decisions, then prefer them to the rejected ones over the imitating model. In place.

    Only the decisions' tokens have a loss, their end tokens among them; the scenes are read and not learned.

    Args:
        policy: The policy to train, as the average user's.
        examples: From `select_examples`.
        config: Settings.
        seed: Draws all batches; on the CPU one seed gives the same bits.
        report: Called after each step of DPO with its metrics.
    """
    imitation_luck, dpo_luck = np.random.SeedSequence(seed).spawn(2)
    losses = imitate_decisions(
        policy, examples.texts, examples.chosen, config, rng=np.random.default_rng(imitation_luck)
    )
    luck = int(dpo_luck.generate_state(1)[0])
    return Training(losses, prefer_decisions(policy, examples, config, seed=luck, report=report))


def prefer_decisions(
    policy: ConditionedPolicy,
    examples: Examples,
    config: MirroringConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """DPO alone: the chosen decisions over the rejected ones, the policy as it stands being the reference.

    Args:
        policy: The policy to train, as the average user's.
        examples: From `select_examples`.
        config: Settings.
        seed: Draws the batches.
        report: Called after each step with its metrics.

    Returns:
        Metrics of each step, as `train_policy` gives them; none where `dpo_epochs` is 0.
    """
    if config.dpo_epochs == 0:
        return []
    steps = steps_for(len(examples.chosen), config.dpo_epochs, config.batch)
    prompts = [decision_prompt(text) for text in examples.texts]
    pairs = PreferencePairs.from_replies(
        policy, prompts, examples.chosen, examples.rejected, _nobody(policy, len(prompts))
    ).against(policy)
    settings = PolicyConfig(
        steps=steps,
        pairs_per_step=config.batch,
        beta=config.beta,
        sft_weight=0.0,
        lora_lr=config.dpo_lr,
        drop_condition=0.0,
        # The schedule knows a share of its steps; the last one must stay outside it.
        warmup=min(config.dpo_warmup_steps, steps - 1) / steps,
        weight_decay=config.weight_decay,
    )
    return train_policy(policy, pairs, settings, seed=seed, report=report)


def imitate_decisions(
    policy: ConditionedPolicy,
    texts: Sequence[str],
    decisions: Sequence[str],
    config: MirroringConfig,
    *,
    rng: np.random.Generator,
) -> list[float]:
    """Imitation alone, as where a model that never saw the form learns to write it. Nats a token of each step.

    Args:
        policy: The policy to train, as the average user's.
        texts: Scenes in words.
        decisions: One a scene, from `decision_text`.
        config: Settings.
        rng: Draws the batches.
    """
    rows = policy.encode_replies([decision_prompt(text) for text in texts], decisions)
    settings = ImitationConfig(
        steps=steps_for(len(rows), config.sft_epochs, config.batch),
        rows_per_step=config.batch,
        lora_lr=config.sft_lr,
    )
    return imitate(policy, rows, _nobody(policy, len(rows)), settings, rng)


def _nobody(policy: ConditionedPolicy, rows: int) -> Condition:
    """The average user in every row: who decides stands in the scene."""
    gate = policy.gate
    return Condition.absent(rows, latent_dim=gate.latent_dim, direction_dim=gate.direction_dim)


def _filled(stories: Sequence[Sequence[str]]) -> list[list[str]]:
    """As many rationales of every scene as the longest list has, the first ones again where there are fewer."""
    width = max((len(own) for own in stories), default=0)
    return [[own[place % len(own)] for place in range(width)] for own in stories]


def _read(scenes: DecisionScenes, stories: Sequence[Sequence[str]], reader: Reader) -> Values:
    """P(option) given each rationale. Shape (S, D, O)."""
    width = len(stories[0])
    texts = [text for text in scenes.texts for _ in range(width)]
    labels = [own for own in scenes.labels for _ in range(width)]
    found = reader(texts, labels, [story for own in stories for story in own])
    return found.reshape(len(stories), width, found.shape[1])


def _decisions(
    scenes: DecisionScenes, stories: list[list[str]], read: Values, pairs: RationalePairs, rows: Ints
) -> tuple[list[str], list[str]]:
    """The decision to learn and the one to unlearn of each of some scenes.

    Args:
        scenes: All of them.
        stories: Their rationales, the strong model's first.
        read: P(option) given each of these. Shape (S, D + D', O).
        pairs: Which rationales make a pair.
        rows: Which scenes.
    """
    chosen, rejected = [], []
    for row in rows.tolist():
        labels, truth = scenes.labels[row], int(scenes.taken[row])
        good, bad = int(pairs.chosen[row]), int(pairs.rejected[row])
        led = read[row, bad].copy()
        # Where a miss is a tie with what was taken, it led to the other one.
        led[truth] = -1.0
        chosen.append(decision_text(stories[row][good], labels[truth]))
        rejected.append(decision_text(stories[row][bad], labels[int(led.argmax())]))
    return chosen, rejected
