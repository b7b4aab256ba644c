"""Splits that keep unseen users and unseen prompts unseen."""

from typing import NamedTuple

import numpy as np

from persona.data.comparisons import ComparisonTable, Rows
from persona.errors import DataError


class PreferenceSplit(NamedTuple):
    """Three tables: no user of the first is in the others, and no prompt of `target` is in the others.

    train: Comparisons of training users on training prompts.
    context: What unseen users may show.
    target: What is to be predicted for the same unseen users.
    """

    train: ComparisonTable
    context: ComparisonTable
    target: ComparisonTable


def split_users_and_prompts(
    table: ComparisonTable,
    *,
    seed: int,
    test_users: float = 0.25,
    target_prompts: float = 0.25,
    context_prompts: float = 0.25,
    prompt_groups: Rows | None = None,
) -> PreferenceSplit:
    """Set users and prompts apart, at random.

    Comparisons that mix the parts (a training user on a held-out prompt) are left out, so a smaller share of
    the table is used than of users or prompts.

    Args:
        table: All comparisons.
        seed: Draws users and prompts.
        test_users: Share of users never trained on, between 0 and 1.
        target_prompts: Share of prompts kept for targets, between 0 and 1.
        context_prompts: Share of prompts kept for contexts, at least 0; with 0, contexts are drawn from the
            prompts of training, which unseen users answer with replies that the model knows.
        prompt_groups: Group of each prompt, such as `persona.data.duplicates.prompt_groups` finds; prompts of one
            group come into one part, so a large group may miss the shares. None: each prompt is its own group.
            Shape (prompts,), int64.

    Raises:
        DataError: A share out of range, a part without comparisons, or a prompt without a group.
    """
    held = target_prompts + context_prompts
    if not (0 < test_users < 1 and target_prompts > 0 and context_prompts >= 0 and held < 1):
        raise DataError(
            "`test_users` must lie between 0 and 1, and `target_prompts` (above 0) plus `context_prompts` "
            f"below 1; got {test_users}, {target_prompts} and {context_prompts}. Choose shares that leave "
            "something to train on."
        )
    rng = np.random.default_rng(seed)
    users = rng.permutation(table.user_ids)
    unseen = np.isin(table.users, users[: round(test_users * len(users))])
    prompts = np.unique(table.prompts)
    target, context = (
        np.isin(table.prompts, part)
        for part in _deal_prompts(prompts, prompt_groups, target_prompts, held, rng)
    )
    shown = context if context_prompts else ~target
    split = PreferenceSplit(
        table.select(~unseen & ~target & ~context),
        table.select(unseen & shown),
        table.select(unseen & target),
    )
    if not all(len(part) for part in split):
        raise DataError(
            "Each part of a split must hold comparisons; got "
            f"{', '.join(f'{name} {len(part)}' for name, part in split._asdict().items())} from {len(users)} "
            f"users and {len(prompts)} prompts. Collect more, or change the shares."
        )
    return split


def _deal_prompts(
    prompts: Rows, prompt_groups: Rows | None, target: float, held: float, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Prompts of the target and of the context: whole groups, in random order, until a part has its share."""
    if prompt_groups is not None and len(prompt_groups) <= prompts.max(initial=-1):
        raise DataError(
            f"`prompt_groups` must have an entry for each prompt, up to {prompts.max()}; got {len(prompt_groups)}. "
            "Group all prompts of the table."
        )
    labels, group = np.unique(
        prompts if prompt_groups is None else np.asarray(prompt_groups)[prompts], return_inverse=True
    )
    order = rng.permutation(len(labels))
    size = np.bincount(group, minlength=len(labels))
    # A group belongs where its middle falls.
    middle = np.empty(len(labels))
    middle[order] = np.cumsum(size[order]) - size[order] / 2
    first, second = round(target * len(prompts)), round(held * len(prompts))
    is_target, is_held = middle[group] < first, middle[group] < second
    return prompts[is_target], prompts[is_held & ~is_target]


def hold_out_users(table: ComparisonTable, share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """The table's users, at random in two parts: those that stay, and about `share` of them held out.

    Raises:
        DataError: Fewer than two users.
    """
    users = rng.permutation(table.user_ids)
    if len(users) < 2:
        raise DataError(
            f"Comparisons must come from at least 2 users; got {len(users)}. Collect comparisons of more "
            "users."
        )
    held = min(max(round(share * len(users)), 1), len(users) - 1)
    return np.sort(users[held:]), np.sort(users[:held])
