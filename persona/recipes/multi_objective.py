"""The multi-objective reward model of DPA on a language model: one head for each rating, and a LoRA under them.

Follows Wang et al. (2024), arXiv 2402.18571, section 3.1, with these departures:

1. A LoRA on a frozen base in place of full fine-tuning; heads on the mean hidden state of the reply's tokens in place
   of the last token's.
2. Heads start from ridge regression on the frozen states (the closed form), so training can only add to it: held-out
   prompts choose after how many steps to stop, with none among the choices.
3. Ratings are standardised on top of the published map to 0..100, so that every objective weighs the same.
4. A missing rating is left out of the mean over a row's ratings; how the published code treats it is not known.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from persona.data.comparisons import Rows
from persona.errors import DataError, ShapeError
from persona.objectives.masked_mse import masked_squared_error
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.language_model import LanguageModel, TokenRow
from persona.recipes.policy import PolicyConfig, endless_batches, rate_factor
from persona.rewards.adapted import AdaptedReward, adapted_states
from persona.rewards.multi_objective import MultiObjectiveReward, fit_multi_objective
from persona.types import Conversation

Report = Callable[[dict[str, float]], None]


class MultiObjectiveConfig(BaseModel):
    """Settings of `train_multi_objective`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Most optimiser steps; held-out prompts may choose fewer.
    steps: int = Field(default=120, ge=0)
    # Replies in a step.
    replies_per_step: int = Field(default=32, ge=1)
    # Optimiser steps between two looks at the held-out prompts.
    check_every: int = Field(default=20, ge=1)
    # LoRA rank.
    rank: int = Field(default=8, ge=1)
    # Peak learning rate of the LoRA.
    lora_lr: float = Field(default=1e-3, gt=0)
    # Peak learning rate of the heads.
    head_lr: float = Field(default=1e-3, gt=0)
    # Share of the prompts that choose when to stop.
    held_out_share: float = Field(default=0.2, gt=0, lt=1)
    # Largest norm of the gradient.
    max_grad_norm: float = Field(default=1.0, gt=0)


def train_multi_objective(
    language_model: LanguageModel,
    conversations: Sequence[Conversation],
    replies: Sequence[str],
    labels: Tensor,
    config: MultiObjectiveConfig,
    *,
    names: Sequence[str],
    seed: int,
    report: Report | None = None,
) -> AdaptedReward:
    """A reward for each objective, on the device of `language_model`, which is left as it is.

    Args:
        language_model: The frozen base.
        conversations: N conversations that end with a message to be answered; equal ones are one prompt.
        replies: The reply to each.
        labels: Ratings on 0..100, NaN where missing. Shape (N, A), float.
        config: Settings.
        names: The A objectives.
        seed: Draws held-out prompts, batches and the LoRA's first weights; one seed gives one result.
        report: Gets `step` and `held_out_loss` (mean squared error in squared standard deviations) at every
            look, from step 0 on.

    Raises:
        DataError: Fewer than four prompts, or an objective without two different labels.
        ShapeError: The parts have not one entry a reply.
        ModelError: A conversation does not fit the model's window.
    """
    if labels.shape != (len(replies), len(names)):
        raise ShapeError(
            f"`labels` must have shape ({len(replies)}, {len(names)}), a row for each reply and a column for "
            f"each name; got {tuple(labels.shape)}. Use NaN for missing labels."
        )
    prompt_of = number_prompts(conversations)
    stay, kept_out = _hold_out(prompt_of, config.held_out_share, seed)
    encoder = ConditionedPolicy.build(language_model, 0, 0, config.rank, seed=seed)
    rows = encoder.encode_replies(conversations, replies)
    with torch.no_grad():
        states = adapted_states(encoder, rows).cpu()
    prompts = torch.from_numpy(prompt_of)
    folds = min(5, len(np.unique(prompt_of[stay])))
    start = fit_multi_objective(
        states[stay], labels[stay], prompts[stay], names=names, seed=seed, folds=folds
    )
    heads = _Heads(start, states[stay], encoder.device)
    target = (labels.float() - start.label_mean) / start.label_std
    best = _optimise(encoder, heads, rows, target, stay, kept_out, config=config, seed=seed, report=report)
    _restore([*encoder.adapter_parameters(), *heads.parameters()], best)
    return AdaptedReward(encoder, heads.fold(start))


def number_prompts(conversations: Sequence[Conversation]) -> Rows:
    """A number for each conversation, the same for equal ones. Shape (N,), int64."""
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    keys = (tuple((m["role"], m["content"]) for m in talk) for talk in conversations)
    return np.asarray([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def _hold_out(prompt_of: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Rows that stay and rows whose prompts are held out."""
    prompts = int(prompt_of.max(initial=-1)) + 1
    if prompts < 4:
        raise DataError(
            f"Ratings must be of replies to at least 4 prompts; got {prompts}. Rate replies to more prompts."
        )
    chosen = np.random.default_rng(seed).permutation(prompts)[
        : min(max(round(share * prompts), 1), prompts - 3)
    ]
    held = np.isin(prompt_of, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


class _Heads(torch.nn.Module):
    """Linear heads over standardised hidden states, which one learning rate suits whatever the base."""

    def __init__(self, start: MultiObjectiveReward, states: Tensor, device: torch.device) -> None:
        super().__init__()
        self.centre = states.mean(0).to(device)
        self.scale = states.std(0).clamp_min(1e-6).to(device)
        weight, bias = start.weight.to(device), start.bias.to(device)
        self.weight = torch.nn.Parameter(weight * self.scale[:, None])
        self.bias = torch.nn.Parameter(bias + self.centre @ weight)

    def forward(self, states: Tensor) -> Tensor:
        scores: Tensor = (states - self.centre) / self.scale @ self.weight + self.bias
        return scores

    def fold(self, start: MultiObjectiveReward) -> MultiObjectiveReward:
        """The same heads over hidden states as they are, on the CPU."""
        weight = (self.weight / self.scale[:, None]).detach()
        bias = (self.bias - self.centre @ weight).detach()
        return MultiObjectiveReward(start.names, weight.cpu(), bias.cpu(), start.label_mean, start.label_std)


def _optimise(
    encoder: ConditionedPolicy,
    heads: _Heads,
    rows: Sequence[TokenRow],
    target: Tensor,
    stay: Rows,
    kept_out: Rows,
    *,
    config: MultiObjectiveConfig,
    seed: int,
    report: Report | None,
) -> list[Tensor]:
    """Weights of LoRA and heads, trained on the rows that stay, at the look with the least held-out loss."""
    parameters = [*encoder.adapter_parameters(), *heads.parameters()]
    groups = [
        {"params": encoder.adapter_parameters(), "lr": config.lora_lr},
        {"params": list(heads.parameters()), "lr": config.head_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = PolicyConfig(steps=max(config.steps, 1))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, schedule))
    lengths = np.asarray([len(rows[i].ids) for i in stay])
    batches = endless_batches(lengths, config.replies_per_step, np.random.default_rng((seed, 1)))
    least, best = float("inf"), [p.detach().clone() for p in parameters]
    for step in range(config.steps + 1):
        if step % config.check_every == 0 or step == config.steps:
            with torch.no_grad():
                loss = _loss(encoder, heads, rows, target, kept_out).item()
            if loss < least:
                least, best = loss, [p.detach().clone() for p in parameters]
            if report is not None:
                report({"step": step, "held_out_loss": loss})
        if step < config.steps:
            optimizer.zero_grad(set_to_none=True)
            _loss(encoder, heads, rows, target, stay[next(batches)]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            scheduler.step()
    return best


def _loss(
    encoder: ConditionedPolicy, heads: _Heads, rows: Sequence[TokenRow], target: Tensor, index: Rows
) -> Tensor:
    predicted = heads(adapted_states(encoder, [rows[i] for i in index.tolist()]))
    return masked_squared_error(predicted, target[index].to(predicted)).mean()


def _restore(parameters: Sequence[torch.nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
