"""What users show and are asked in a training step of FSPO: users of a table, and imagined ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.data.comparisons import ComparisonTable, Rows, rows_of_users
from persona.errors import DataError
from persona.profiles.hierarchical_bayes import HierarchicalBayes, fit_hierarchical_bayes
from persona.profiles.shots import Shot
from persona.types import Conversation


class ReplyTexts(NamedTuple):
    """The texts that the rows of a `ComparisonTable` stand for.

    prompts: Conversations, by row of `ComparisonTable.prompts`.
    replies: Replies, by row of `chosen` and `rejected`.
    """

    prompts: Sequence[Conversation]
    replies: Sequence[str]

    def shots(self, table: ComparisonTable, rows: Sequence[int] | Rows) -> list[Shot]:
        """The given comparisons as shots."""
        return [
            Shot(
                self.prompts[table.prompts[row]],
                self.replies[table.chosen[row]],
                self.replies[table.rejected[row]],
            )
            for row in rows
        ]


class Task(NamedTuple):
    """What one user shows and is asked in a step.

    shots: Choices shown.
    prompt: Row of the prompt asked about; none of the shots answers it.
    options: Rows of R replies to it.
    wins: How much it counts that the row's reply is preferred to the column's. Shape (R, R), zero diagonal, sums to 1.
    description: The user in words, shown before the answer; None for none.
    """

    shots: list[Shot]
    prompt: int
    options: list[int]
    wins: NDArray[np.float64]
    description: str | None = None


def draw_tasks(
    table: ComparisonTable,
    texts: ReplyTexts,
    users: Rows,
    counts: Rows,
    *,
    most_asked: int,
    rng: np.random.Generator,
) -> list[Task]:
    """Tasks of users of the table.

    A user's comparisons are shuffled; the first are shown, and those of other prompts asked about.

    Args:
        table: Who chose what.
        texts: What its rows stand for.
        users: Users of the step, each with at least one comparison. Shape (B,).
        counts: Shots of each; at least one comparison of a user is left to be asked about. Shape (B,).
        most_asked: Most pairs that a user is asked about.
        rng: Draws the order of each user's comparisons.
    """
    rows, mask = rows_of_users(table, users, None, rng)
    shown = mask & (np.arange(rows.shape[1]) < np.minimum(counts, mask.sum(1) - 1)[:, None])
    prompts = table.prompts[rows]
    leaked = ((prompts[:, :, None] == prompts[:, None, :]) & shown[:, None, :]).any(2)
    asked = mask & ~leaked
    asked &= asked.cumsum(1) <= most_asked
    wins = np.array([[0.0, 1.0], [0.0, 0.0]])
    tasks = []
    for user in range(len(users)):
        shots = texts.shots(table, rows[user, shown[user]])
        for row in rows[user, asked[user]]:
            pair = [int(table.chosen[row]), int(table.rejected[row])]
            tasks.append(Task(shots, int(table.prompts[row]), pair, wins))
    return tasks


class Dreamer(NamedTuple):
    """Imagines users from the population of a table.

    population: Fitted to the table.
    features: Of every reply. Shape (N, D).
    prompts: Rows of the table's prompts that have two replies or more.
    replies: For each of them, rows of the replies that the table compares.
    """

    population: HierarchicalBayes
    features: Tensor
    prompts: list[int]
    replies: list[list[int]]

    @classmethod
    def fit(cls, table: ComparisonTable, features: Tensor, *, seed: int) -> "Dreamer":
        """Fit the population, and gather the replies to each prompt."""
        both = np.concatenate([table.chosen, table.rejected])
        pairs = np.unique(np.stack([np.tile(table.prompts, 2), both]), axis=1)
        prompts, start = np.unique(pairs[0], return_index=True)
        return cls(
            fit_hierarchical_bayes(table, features, seed=seed),
            features,
            prompts.tolist(),
            [part.tolist() for part in np.split(pairs[1], start[1:])],
        )

    def tasks(
        self,
        texts: ReplyTexts,
        counts: Rows,
        *,
        most_asked: int,
        most_options: int,
        clear_shots: bool,
        clear_questions: bool,
        rng: np.random.Generator,
    ) -> list[Task]:
        """Tasks of imagined users, who are asked about other prompts than they were shown.

        Args:
            texts: What rows stand for.
            counts: Shots of each user. Shape (B,).
            most_asked: Most prompts that a user is asked about.
            most_options: Most replies to one prompt that a user judges.
            clear_shots: Show the best and the worst reply to each prompt in the user's eyes. Else all users are shown
                of the same random pairs, and choose by chance, as likely as their taste has it.
            clear_questions: Ask about the best and the worst reply to each prompt, and let half of the users be
                opposites of the others who are shown and asked the same, so that what pleases everyone cancels. Users
                without shots are left out of that: of them, what pleases everyone is all that can be learned.
            rng: Draws tastes, pairs, choices and prompts.

        Raises:
            DataError: The table has too few prompts.
        """
        users, most = len(counts), int(max(counts)) + 2
        if len(self.prompts) < most + 1:
            raise DataError(
                f"Imagined users need at least {most + 1} prompts with replies, three more than shots; got "
                f"{len(self.prompts)}. Show fewer, or set `imagined` to 0."
            )
        places = rng.permutation(len(self.prompts))
        shown, asked = places[:most], np.tile(places[most:], (users, 1))
        orders = np.tile(np.arange(most), (users, 1))
        asked, orders = (rng.permuted(part, axis=1) for part in (asked, orders))
        normal = torch.from_numpy(rng.standard_normal((users, len(self.population.mean))))
        taste = self.population.mean.double() + normal @ self.population.factor.double().T
        luck = rng.random((users, most))
        if clear_questions:
            twin = np.arange(users) % ((users + 1) // 2)
            counts = counts[twin]
            # Who shows nothing is the average user, whose likes must not cancel.
            twin = np.where(counts > 0, twin, np.arange(users))
            opposite = (twin != np.arange(users))[:, None]
            taste = torch.where(torch.from_numpy(opposite), -taste[twin], taste[twin])
            luck = np.where(opposite, 1.0 - luck[twin], luck[twin])
            asked, orders = asked[twin], orders[twin]
        pairs = np.array([rng.choice(self.replies[place], 2, replace=False) for place in shown])
        likes = [
            self._choices(shown, one) if clear_shots else self._by_chance(pairs, one, chance)
            for one, chance in zip(taste, luck, strict=True)
        ]
        tasks = []
        for user, one in enumerate(taste):
            shots = [
                Shot(texts.prompts[self.prompts[shown[i]]], *(texts.replies[row] for row in likes[user][i]))
                for i in orders[user, : counts[user]]
            ]
            for place in asked[user, :most_asked]:
                options = self.replies[place]
                if clear_questions and counts[user]:
                    options = self._choices([place], one)[0].tolist()
                options = rng.permutation(options)[:most_options].tolist()
                tasks.append(Task(shots, self.prompts[place], options, self._wins(options, one)))
        return tasks

    def _choices(self, places: Rows | list[int], taste: Tensor) -> Rows:
        """Best and worst reply to the prompt of each place. Shape (P, 2)."""
        found = []
        for place in places:
            reward = self.features[self.replies[place]].double() @ taste
            found.append(
                [self.replies[place][int(reward.argmax())], self.replies[place][int(reward.argmin())]]
            )
        return np.array(found)

    def _by_chance(self, pairs: Rows, taste: Tensor, luck: NDArray[np.float64]) -> Rows:
        """Pairs (P, 2) with the reply first that was chosen under uniform numbers (P,)."""
        difference = (self.features[pairs[:, 0]] - self.features[pairs[:, 1]]).double()
        turned = torch.sigmoid(difference @ taste).numpy() <= luck
        return np.where(turned[:, None], pairs[:, ::-1], pairs)

    def _wins(self, options: list[int], taste: Tensor) -> NDArray[np.float64]:
        reward = (self.features[options].double() @ taste).numpy()
        wins = 1.0 / (1.0 + np.exp(reward[None, :] - reward[:, None]))
        np.fill_diagonal(wins, 0.0)
        total: NDArray[np.float64] = wins / wins.sum()
        return total
