"""Few-shot preference optimisation (FSPO): one policy learns to read any user's choices before it answers.

Follows Singh et al. (2025), "FSPO: Few-Shot Preference Optimization of Synthetic Preference Data in Language Models
Elicits Effective Personalization to Real Users", arXiv 2502.19312: a user is a task, and the loss of a user's pair is
taken after other pairs of the same user. Departures:

1. The number of shots is drawn anew for each user and step, none among the choices, so that one policy serves every
   number of shots and the average user.
2. No prompt that is asked about occurs among the shots, whose order is random.
3. Shots go through the chat template, as exchanges, and not as headed sections of text; the policy's tokens are the
   reply and its end token.
4. By default every shot is a window of its own, of which later rows see the last tokens alone: shots are a set, more
   of them than in training take no new positions, and each is read once however many prompts follow.
5. The reference sees the same shots, as in the paper, or none, which costs a third less.
6. Beside the users of the table, imagined ones may be trained on: tastes drawn from the hierarchical Bayes population
   that was fitted to the same table. Such a user judges all replies to a prompt at once, with the probabilities of
   its taste in place of drawn labels, and several of them share the pairs that they are shown.
7. The loss is a function that is passed in (`dpo_loss`, `ipo_loss`); there is no first stage of supervised learning.
   Learning rates are those of a LoRA on a small model.
8. A description of the user (RAT) is learned in the same run from a teacher's words, and shown before the answer in a
   share of the tasks, so that the policy answers with and without one.
9. Rewards become probabilities by a scale that is fitted on held-out users, so that neither beta nor the loss decides
   how sure a score is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import PreTrainedModel

from persona.data.comparisons import ComparisonTable
from persona.data.splits import hold_out_users
from persona.errors import DataError
from persona.objectives.dpo import dpo_loss
from persona.objectives.ipo import mean_log_probs
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.context_windows import read_prompts, reply_log_probs
from persona.policy.language_model import LanguageModel
from persona.profiles.few_shot import FewShotProfile, Reference, described, description_request
from persona.profiles.shots import Layout, Order, Placed, Shot, ShotFormat, lay_out_shots, place_prompt
from persona.recipes.few_shot_tasks import Dreamer, ReplyTexts, Task, draw_tasks
from persona.recipes.policy import PolicyConfig, rate_factor
from persona.types import Conversation

Report = Callable[[Mapping[str, float]], None]

CLEAR_SHOTS = 1, 2
"""Fewest and most shots of imagined users who show clear choices."""

TASKS_AT_ONCE = 32
"""Tasks that are scored at once."""

_SCALES = torch.logspace(-3, 1, 81, dtype=torch.float64)
_Known: TypeAlias = dict[tuple[int, int, str | None], float]
_NO_SHOTS = Layout((), (Order(),))


class PairLoss(Protocol):
    """A loss of pairs from four log-probabilities of shape (B,)."""

    def __call__(
        self,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        ref_chosen: Tensor,
        ref_rejected: Tensor,
        beta: float,
    ) -> Tensor:
        """Loss of each pair. Shape (B,)."""
        ...


class FewShotConfig(BaseModel):
    """Settings of `train_few_shot`; the defaults suit the embedded model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Optimiser steps.
    steps: int = Field(default=300, ge=1)
    # Users in a step.
    users_per_step: int = Field(default=6, ge=1)
    # Numbers of shots that are drawn from, each equally likely; 0 alone trains a policy for the average user.
    shots: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4, 8), min_length=1)
    # Prompts that a user is asked about in a step.
    pairs_per_user: int = Field(default=4, ge=1)
    # Share of the steps whose users are imagined, 0..1; needs features.
    imagined: float = Field(default=0.0, ge=0, le=1)
    # Share of the steps, the first ones, in which imagined users show few and clear choices, 0..1.
    clear_shots: float = Field(default=0.25, ge=0, le=1)
    # Share of the steps, the first ones, in which they are asked about clear choices, beside their opposites, 0..1.
    clear_questions: float = Field(default=0.8, ge=0, le=1)
    # Most replies to one prompt that an imagined user judges.
    options: int = Field(default=6, ge=2)
    # Pull towards the reference, 1 / nats.
    beta: float = Field(default=0.3, gt=0)
    # Weight of the likelihood of preferred replies, in nats a token, beside the loss.
    sft_weight: float = Field(default=0.0, ge=0)
    # Peak learning rate of the LoRA.
    learning_rate: float = Field(default=3e-3, gt=0)
    # Rank of the LoRA, on every linear layer but the output head.
    rank: int = Field(default=16, ge=1)
    # Share of the steps over which the learning rate rises; it then falls as a cosine.
    warmup: float = Field(default=0.1, ge=0, lt=1)
    # Share of the tasks with shots in which a description of the user is learned and shown before the answer, 0..1.
    described: float = Field(default=0.0, ge=0, le=1)
    # Weight of the likelihood of descriptions, in nats a token.
    describe_weight: float = Field(default=1.0, ge=0)
    # Largest norm of the gradient.
    max_grad_norm: float = Field(default=1.0, gt=0)
    # How shots become tokens.
    shot_format: ShotFormat = ShotFormat()
    # What rewards are measured against.
    reference: Reference = Reference.SAME_SHOTS
    # Share of the users that the scale of probabilities is fitted on; they are not trained on.
    held_out_share: float = Field(default=0.05, gt=0, lt=1)


def train_few_shot(
    table: ComparisonTable,
    texts: ReplyTexts,
    language_model: LanguageModel,
    config: FewShotConfig,
    *,
    seed: int,
    features: Tensor | None = None,
    loss: PairLoss = dpo_loss,
    describe: Callable[[Sequence[Shot]], str] | None = None,
    report: Report | None = None,
) -> FewShotProfile:
    """A profile whose policy has learned to read choices of the users of `table`.

    Args:
        table: Comparisons of training users alone.
        texts: What its rows stand for.
        language_model: The frozen base.
        config: Settings.
        seed: Draws weights, held-out users, tasks and orders; one seed gives one result.
        features: Features of every reply, to fit the population that users are imagined from. Shape (N, D).
        loss: Of a pair.
        describe: Says in words what a user's shots tell, as a teacher of `FewShotProfile.describe`.
        report: Gets `step`, `loss`, `accuracy` (share of pairs whose preferred side has the larger reward), `margin`
            (nats) and `grad_norm` of each step, and at the end `scale` and `held_out_log_loss`.

    Raises:
        DataError: Fewer than two users; or users are to be imagined without features, or described without `describe`.
    """
    if config.imagined > 0 and features is None:
        raise DataError(
            f"`features` must be given to imagine users; got imagined={config.imagined} and no features. Pass "
            "features of the replies, or set `imagined` to 0."
        )
    if config.described > 0 and describe is None:
        raise DataError(
            f"`describe` must be given to train descriptions; got described={config.described} and no function. Pass "
            "`describe_choices`, or set `described` to 0."
        )
    report = report or _ignore
    stay, held_out = hold_out_users(table, config.held_out_share, np.random.default_rng(seed))
    policy = ConditionedPolicy.build(language_model, 0, 0, rank=config.rank, seed=seed)
    profile = FewShotProfile(policy, config.shot_format, reference=config.reference, scale=config.beta)
    kept = table.select(np.isin(table.users, stay))
    dreamer = None
    if config.imagined > 0 and features is not None:
        dreamer = Dreamer.fit(kept, features, seed=seed)

    def draw(step: int, rng: np.random.Generator) -> list[Task]:
        tasks = _draw(kept, texts, config, dreamer, step, rng)
        chosen = rng.random(len(tasks)) < config.described
        return [
            task._replace(description=describe(task.shots)) if told and task.shots and describe else task
            for task, told in zip(tasks, chosen, strict=True)
        ]

    _optimise(profile, draw, texts, config, seed=seed, loss=loss, report=report)
    asked = table.select(np.isin(table.users, held_out))
    profile.scale, held_out_loss = _fit_scale(profile, asked, texts, config, seed=seed)
    report({"step": config.steps, "scale": profile.scale, "held_out_log_loss": held_out_loss})
    return profile


def untrained_few_shot(
    table: ComparisonTable,
    texts: ReplyTexts,
    language_model: LanguageModel,
    config: FewShotConfig,
    *,
    seed: int,
) -> FewShotProfile:
    """The in-context prompt: the base model itself reads the shots; the scale of its probabilities alone is fitted.

    Args:
        table: Comparisons of users that the scale is fitted on, `config.held_out_share` of them.
        texts: What its rows stand for.
        language_model: The frozen base.
        config: Of the shots and the reference, which must not be that of the same shots: nothing would be left.
        seed: Draws users and their tasks.

    Raises:
        DataError: Fewer than two users, or rewards against the same shots.
    """
    if config.reference is Reference.SAME_SHOTS:
        raise DataError(
            "`reference` must not read the same shots where nothing is trained; got 'same shots', against which every "
            "reward is 0. Use 'no shots'."
        )
    _, users = hold_out_users(table, config.held_out_share, np.random.default_rng(seed))
    policy = ConditionedPolicy.build(language_model, 0, 0, rank=1, seed=seed)
    profile = FewShotProfile(policy, config.shot_format, reference=config.reference)
    profile.scale, _ = _fit_scale(
        profile, table.select(np.isin(table.users, users)), texts, config, seed=seed
    )
    return profile


def _optimise(
    profile: FewShotProfile,
    draw: Callable[[int, np.random.Generator], list[Task]],
    texts: ReplyTexts,
    config: FewShotConfig,
    *,
    seed: int,
    loss: PairLoss,
    report: Report,
) -> None:
    """Train the LoRA in place."""
    rng = np.random.default_rng((seed, 1))
    parameters = profile.policy.adapter_parameters()
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    pace = PolicyConfig(steps=config.steps, warmup=config.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(step, pace))
    known: _Known = {}
    for step in range(1, config.steps + 1):
        tasks = draw(step, rng)
        optimiser.zero_grad(set_to_none=True)
        total, margins = _step_loss(profile, tasks, texts, config, loss, known)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimiser.step()
        schedule.step()
        report(
            {
                "step": step,
                "loss": total.item(),
                "accuracy": (margins > 0).float().mean().item(),
                "margin": margins.mean().item(),
                "grad_norm": norm.item(),
            }
        )


def _draw(
    table: ComparisonTable,
    texts: ReplyTexts,
    config: FewShotConfig,
    dreamer: Dreamer | None,
    step: int,
    rng: np.random.Generator,
) -> list[Task]:
    """Tasks of one step, of users of the table or of imagined ones."""
    counts = rng.choice(config.shots, config.users_per_step)
    if dreamer is not None and rng.random() < config.imagined:
        clear_shots = step <= config.clear_shots * config.steps
        return dreamer.tasks(
            texts,
            counts.clip(*CLEAR_SHOTS) if clear_shots else counts,
            most_asked=config.pairs_per_user,
            most_options=config.options,
            clear_shots=clear_shots,
            clear_questions=step <= config.clear_questions * config.steps,
            rng=rng,
        )
    users = rng.choice(table.user_ids, len(counts))
    return draw_tasks(table, texts, users, counts, most_asked=config.pairs_per_user, rng=rng)


def _step_loss(
    profile: FewShotProfile,
    tasks: Sequence[Task],
    texts: ReplyTexts,
    config: FewShotConfig,
    loss: PairLoss,
    known: _Known,
) -> tuple[Tensor, Tensor]:
    """Mean loss of the tasks, and the margins of the pairs that count, the likelier side first."""
    model = profile.policy.language_model
    rows, placed, telling = _lay_out(model, tasks, texts, config.shot_format)
    scored = _log_probs(profile, profile.adapted, rows, [*placed, *telling])
    policy = scored[: sum(len(one.replies) for one in placed)]
    reference = _reference(profile, rows, placed, tasks, texts, known)
    first, second, weight, likelier = (part.to(policy.device) for part in _pairs(tasks))
    losses = loss(policy[first], policy[second], reference[first], reference[second], config.beta)
    total = weight @ losses
    if config.sft_weight:
        lengths = torch.tensor([len(reply) for one in placed for reply in one.replies], device=policy.device)
        total = total - config.sft_weight * (weight @ mean_log_probs(policy, lengths)[first])
    if telling:
        lengths = torch.tensor([len(one.replies[0]) for one in telling], device=policy.device)
        told = mean_log_probs(scored[len(policy) :], lengths).sum() / len(tasks)
        total = total - config.describe_weight * told
    reward = (policy - reference).detach()
    return total, (reward[first] - reward[second])[likelier]


def _log_probs(
    profile: FewShotProfile, model: PreTrainedModel, rows: Sequence[tuple[int, ...]], placed: Sequence[Placed]
) -> Tensor:
    """Log-probability of the replies of all prompts, one after another, behind the windows `rows`."""
    owner = [index for index, one in enumerate(placed) for _ in one.replies]
    replies = [reply for one in placed for reply in one.replies]
    with profile.policy.language_model.precision():
        contexts = read_prompts(model, profile.read_rows(model, rows), [one.prompt for one in placed])
        return reply_log_probs(model, contexts, replies, owner)


def _lay_out(
    model: LanguageModel, tasks: Sequence[Task], texts: ReplyTexts, shot_format: ShotFormat
) -> tuple[list[tuple[int, ...]], list[Placed], list[Placed]]:
    """Token rows of all shots, each once; prompts and replies of all tasks; requests for descriptions, and these."""
    number: dict[tuple[int, ...], int] = {}

    def place(task: Task, asked: Conversation, replies: list[str]) -> Placed:
        first = asked[0]
        system = first["content"] if first["role"] == "system" else None
        layout = lay_out_shots(model, task.shots, shot_format, system=system)
        one = place_prompt(model, layout, layout.orders[0], asked, replies)
        seen = tuple(number.setdefault(layout.rows[i], len(number)) for i in one.prompt.windows)
        return one._replace(prompt=one.prompt._replace(windows=seen))

    placed = [
        place(
            task,
            described(texts.prompts[task.prompt], task.description),
            [texts.replies[row] for row in task.options],
        )
        for task in tasks
    ]
    telling = [
        place(task, description_request(), [task.description])
        for task in tasks
        if task.description is not None
    ]
    return list(number), placed, telling


@torch.no_grad()
def _reference(
    profile: FewShotProfile,
    rows: Sequence[tuple[int, ...]],
    placed: Sequence[Placed],
    tasks: Sequence[Task],
    texts: ReplyTexts,
    known: _Known,
) -> Tensor:
    """Log-probability of every reply under the reference; those that no shots change are kept in `known`."""
    model, base = profile.policy.language_model, profile.base
    names = [(task.prompt, option, task.description) for task in tasks for option in task.options]
    if profile.reference is Reference.NOTHING:
        return torch.zeros(len(names), device=base.device)
    if profile.reference is Reference.SAME_SHOTS:
        return _log_probs(profile, base, rows, placed)
    fresh = [
        task
        for task in tasks
        if any((task.prompt, option, task.description) not in known for option in task.options)
    ]
    if fresh:
        alone = [
            place_prompt(
                model,
                _NO_SHOTS,
                Order(),
                described(texts.prompts[task.prompt], task.description),
                [texts.replies[row] for row in task.options],
            )
            for task in fresh
        ]
        scored = _log_probs(profile, base, (), alone).tolist()
        found = [(task.prompt, option, task.description) for task in fresh for option in task.options]
        known.update(zip(found, scored, strict=True))
    return torch.tensor([known[name] for name in names], device=base.device)


def _pairs(tasks: Sequence[Task]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of the preferred and the other reply of each pair, its weight, and whether it is the likelier way round."""
    first, second, weight, likelier = [], [], [], []
    start = 0
    for task in tasks:
        one, other = np.nonzero(task.wins)
        first.append(start + one)
        second.append(start + other)
        weight.append(task.wins[one, other] / len(tasks))
        likelier.append(task.wins[one, other] > task.wins[other, one])
        start += len(task.options)
    return (
        torch.from_numpy(np.concatenate(first)),
        torch.from_numpy(np.concatenate(second)),
        torch.from_numpy(np.concatenate(weight)).float(),
        torch.from_numpy(np.concatenate(likelier)),
    )


def _fit_scale(
    profile: FewShotProfile, table: ComparisonTable, texts: ReplyTexts, config: FewShotConfig, *, seed: int
) -> tuple[float, float]:
    """Log-odds for each nat of reward at which held-out users' choices are likeliest, and their mean surprise."""
    rng = np.random.default_rng((seed, 2))
    users = np.tile(table.user_ids, 2)
    tasks = draw_tasks(
        table, texts, users, rng.choice(config.shots, len(users)), most_asked=config.pairs_per_user, rng=rng
    )
    margins: list[Tensor] = []
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        with torch.no_grad():
            part = tasks[start : start + TASKS_AT_ONCE]
            margins.append(_step_loss(profile, part, texts, config, dpo_loss, {})[1])
    margin = torch.cat(margins).double().cpu()
    surprise = torch.nn.functional.softplus(-_SCALES[:, None] * margin).mean(1)
    best = int(surprise.argmin())
    return float(_SCALES[best]), float(surprise[best])


def _ignore(figures: Mapping[str, float]) -> None:
    """Take a report and do nothing with it."""
