"""Whole dialogues as training examples: what the policy read and drew at every turn, and which dialogue went better.

A dialogue is not one row of tokens: each turn has a prompt of its own, with a card and a part of the history. So a
trajectory is a row for each turn, made of the tokens of the moment (`Recommender(keep_tokens=True)`); nothing is
tokenised again, and only what the policy drew counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from persona.policy.language_model import TokenRow
from persona.types import Condition
from simulators.errors import RolloutError
from simulators.randomness import keyed_bits
from simulators.types import Dialogue, StopReason

Trajectory: TypeAlias = tuple[TokenRow, ...]
"""One row of tokens a turn, oldest first; the policy's tokens are those it drew."""

_GOOD, _BAD = 401, 402


def trajectory_of(dialogue: Dialogue) -> Trajectory:
    """The tokens of a dialogue's turns.

    Raises:
        RolloutError: There is no turn, or a reply came without its tokens.
    """
    tokens = [turn.reply.tokens for turn in dialogue.turns]
    if not tokens or None in tokens:
        raise RolloutError(
            f"Every reply must hold the tokens of its generation; dialogue of user {dialogue.user} has "
            f"{sum(t is not None for t in tokens)} of {len(tokens)}. Let `Recommender` keep them: `keep_tokens=True`."
        )
    return tuple(
        TokenRow((*t.prompt, *t.reply), (False,) * len(t.prompt) + (True,) * len(t.reply))
        for t in tokens
        if t
    )


@dataclass(frozen=True, eq=False)
class TrajectoryPairs:
    """Pairs of whole dialogues of one user each.

    Attributes:
        chosen: P dialogues that ended well.
        rejected: P dialogues of the same users, under the same luck, that did not.
        condition: What the policy knew of each pair's user, P rows.
    """

    chosen: Sequence[Trajectory]
    rejected: Sequence[Trajectory]
    condition: Condition

    def __post_init__(self) -> None:
        """Check that all parts have one entry a pair."""
        _check_sizes(chosen=len(self.chosen), rejected=len(self.rejected), condition=len(self.condition))

    def __len__(self) -> int:
        """Number of pairs P."""
        return len(self.chosen)


@dataclass(frozen=True, eq=False)
class LabelledTrajectories:
    """Whole dialogues that ended well or badly, each by itself.

    Attributes:
        dialogues: N dialogues.
        desirable: True where it ended well. Shape (N,), bool.
        condition: What the policy knew of each user, N rows.
    """

    dialogues: Sequence[Trajectory]
    desirable: Tensor
    condition: Condition

    def __post_init__(self) -> None:
        """Check that all parts have one entry a dialogue."""
        _check_sizes(
            dialogues=len(self.dialogues), desirable=len(self.desirable), condition=len(self.condition)
        )

    def __len__(self) -> int:
        """Number of dialogues N."""
        return len(self.dialogues)


def pair_trajectories(
    attempts: Sequence[Sequence[Dialogue]], condition: Condition, *, seed: int
) -> TrajectoryPairs:
    """One success and one failure of each user that had both, drawn at random.

    Args:
        attempts: K lists of the same U users' dialogues, from `rollout(..., attempt=k)`: the users' luck is the same
            in all of them, so what differs follows from what the policy said. Dialogues whose model failed, or that
            have no turn, are left out.
        condition: What the policy knew of each user, U rows.
        seed: Draws one of several successes or failures.

    Returns:
        One pair a user that had both, in the order of the users.

    Raises:
        RolloutError: The lists are of different users, no user had both, or a reply came without its tokens.
    """
    by_user = _by_user(attempts, condition)
    rows, chosen, rejected = [], [], []
    for row, dialogues in enumerate(by_user):
        good = [d for d in dialogues if d.stop is StopReason.ACCEPTED]
        bad = [d for d in dialogues if d.stop is not StopReason.ACCEPTED]
        if good and bad:
            rows.append(row)
            chosen.append(trajectory_of(_drawn(good, seed, _GOOD)))
            rejected.append(trajectory_of(_drawn(bad, seed, _BAD)))
    return TrajectoryPairs(chosen, rejected, condition.select(rows))


def label_trajectories(attempts: Sequence[Sequence[Dialogue]], condition: Condition) -> LabelledTrajectories:
    """Every dialogue with whether its user accepted; arguments and errors as in `pair_trajectories`."""
    by_user = _by_user(attempts, condition)
    rows = [row for row, dialogues in enumerate(by_user) for _ in dialogues]
    everything = [dialogue for dialogues in by_user for dialogue in dialogues]
    return LabelledTrajectories(
        [trajectory_of(dialogue) for dialogue in everything],
        torch.tensor([dialogue.stop is StopReason.ACCEPTED for dialogue in everything]),
        condition.select(rows),
    )


def _by_user(attempts: Sequence[Sequence[Dialogue]], condition: Condition) -> list[list[Dialogue]]:
    """The usable dialogues of each user."""
    users = {tuple(dialogue.user for dialogue in dialogues) for dialogues in attempts}
    if len(users) != 1 or len(next(iter(users))) != len(condition):
        raise RolloutError(
            f"All attempts must be of the same users, and `condition` have one row for each; got {len(users)} "
            f"different lists of users and {len(condition)} rows. Roll the same users out again."
        )
    return [
        [d for d in dialogues if d.turns and d.stop is not StopReason.MODEL_FAILED]
        for dialogues in zip(*attempts, strict=True)
    ]


def _drawn(dialogues: Sequence[Dialogue], seed: int, purpose: int) -> Dialogue:
    bits = keyed_bits(seed, dialogues[0].user, purpose)
    return dialogues[int(bits % np.uint64(len(dialogues)))]


def _check_sizes(**sizes: int) -> None:
    if len(set(sizes.values())) != 1 or not next(iter(sizes.values())):
        raise RolloutError(
            f"All parts must have one entry an example, and there must be one; got {sizes}. Roll more users out, or "
            "each more often, until some both accept and leave."
        )
