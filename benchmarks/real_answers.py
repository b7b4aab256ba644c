"""Simulated users over real answers: users weigh eight measured attributes of answers that real models gave.

The file holds one JSON object a line, gzipped or not: `prompt`, and `responses` from a model's name to its answer.
The attributes are measured here, by plain counts and the cosine of sentence embeddings, and shown to no learner.
"""

import gzip
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.data import PreferenceSplit, split_users_and_prompts
from persona.data.comparisons import ComparisonTable
from persona.data.simulated import SimulatedUsers, simulate_users
from persona.errors import DataError
from persona.features import SURFACE_NAMES, Featurizer, parse_features

ATTRIBUTES = (
    "length",
    "lists",
    "hedging",
    "questions",
    "informality",
    "enthusiasm",
    "simplicity",
    "on topic",
)
FEATURE_SETS = ("embeddings", "embeddings and plain counts", "embeddings and counts", "all")
PLAIN_COUNTS = (
    "words", "sentences", "exclamation_marks", "question_marks", "commas", "list_items", "headings", "paragraphs",
    "hedges", "contractions", "excited_words", "informal_words", "letters_per_word", "words_per_sentence",
    "reading_ease", "digits", "first_person", "second_person",
)  # fmt: skip
"""What published anchors counted, as far as they say; the surface features of `persona.features` count more."""
COMPARISONS = 200
TEMPERATURE = 0.116
"""Leaves someone who knows the truth at about 82 %."""
COMPONENTS = 16
"""Leading directions of the embeddings."""

_WORD = re.compile(r"[a-z']+")
_LIST = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s", re.MULTILINE)
_HEDGES = frozenset(
    "may might maybe could would perhaps possibly seem seems probably likely generally usually often sometimes "
    "typically somewhat".split()
)
_EXCITED = frozenset(
    "great amazing awesome fantastic exciting wonderful excited love excellent incredible".split()
)
_INFORMAL = frozenset("hey yeah ok okay gonna wanna kinda stuff cool guys".split())


class Answers(NamedTuple):
    """Real answers with raw features and measured attributes.

    prompt_of: Row of the prompt of each answer. Shape (N,).
    blocks: Raw features by block. Shapes (N, H).
    prompts: Raw features of the prompt of each answer, by block. Shapes (N, H).
    values: Measured attributes. Shape (N, 8).
    """

    prompt_of: NDArray[np.int64]
    blocks: dict[str, Tensor]
    prompts: dict[str, Tensor]
    values: NDArray[np.float64]


class Trial(NamedTuple):
    """Users of one seed.

    split: Who is trained on, and who is measured.
    users: The truth.
    """

    split: PreferenceSplit
    users: SimulatedUsers


def read_answers(path: Path, encoder: str, cache: Path) -> Answers:
    """Answers of a file, their features and attributes; states of the encoder are kept in `cache`.

    Raises:
        DataError: A line is not as described.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        try:
            rows = [(row["prompt"], list(row["responses"].values())) for row in map(json.loads, lines)]
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise DataError(
                f"Each line of `{path.name}` must be a JSON object with `prompt` and `responses`; got otherwise "
                f"({err!r}). Give a file of answers."
            ) from err
    prompts = [prompt for prompt, _ in rows]
    replies = [reply for _, given in rows for reply in given]
    prompt_of = np.repeat(np.arange(len(rows)), [len(given) for _, given in rows])
    features = parse_features(["surface", "relation", f"encoder={encoder}"], cache=cache)
    blocks = features.compute([prompts[row] for row in prompt_of], replies)
    asked = {name: block[torch.from_numpy(prompt_of)] for name, block in features.of_prompts(prompts).items()}
    cosine = blocks[f"encoder={encoder} cosine"].numpy()
    return Answers(prompt_of, blocks, asked, np.column_stack([_measure(replies), cosine]))


def draw_trial(
    answers: Answers, *, train_users: int, unseen_users: int, seed: int, comparisons: int = COMPARISONS
) -> Trial:
    """Users of one seed: half of the prompts to train on, a quarter for contexts, a quarter to foretell."""
    users = simulate_users(
        answers.values,
        answers.prompt_of,
        users=train_users + unseen_users,
        comparisons=comparisons,
        seed=seed,
        temperature=TEMPERATURE,
    )
    share = unseen_users / (train_users + unseen_users)
    return Trial(split_users_and_prompts(users.table, seed=seed, test_users=share), users)


def feature_matrix(answers: Answers, table: ComparisonTable, name: str) -> Tensor:
    """Features of all answers, scaled by those to training prompts. Shape (N, D).

    Args:
        answers: The answers.
        table: Comparisons of training users.
        name: One of `FEATURE_SETS`: embeddings alone; with plain counts, as published anchors had; with all surface
            counts; or everything that `persona fit` computes from the same encoder, overlap and cosine with the prompt
            among it.
    """
    plain = [SURFACE_NAMES.index(count) for count in PLAIN_COUNTS]
    blocks = {**answers.blocks, "plain counts": answers.blocks["surface"][:, plain]}
    states = next(key for key in blocks if key.startswith("encoder=") and not key.endswith("cosine"))
    kept = {
        "embeddings": [states],
        "embeddings and plain counts": ["plain counts", states],
        "embeddings and counts": ["surface", states],
        "all": list(answers.blocks),
    }[name]
    return _scaled(
        answers,
        table,
        {key: blocks[key] for key in kept},
        {states: COMPONENTS} if name != "embeddings" else {},
    )


def prompt_matrix(answers: Answers, table: ComparisonTable) -> Tensor:
    """Features of each answer's prompt, scaled alike. Shape (N, E)."""
    return _scaled(answers, table, answers.prompts, dict.fromkeys(answers.prompts, COMPONENTS))


def controversial(trial: Trial) -> NDArray[np.bool_]:
    """Which targets divide the unseen users: their true shares for and against lie in the middle third. Shape (M,)."""
    target, users = trial.split.target, trial.users
    weights = users.weights[trial.split.target.user_ids]
    gain = (users.values[target.chosen] - users.values[target.rejected]) @ weights.T
    margin = np.abs((gain > 0).mean(1) - 0.5)
    return np.asarray(margin <= np.quantile(margin, 1 / 3))


def _scaled(
    answers: Answers, table: ComparisonTable, raw: dict[str, Tensor], components: dict[str, int]
) -> Tensor:
    rows = torch.from_numpy(np.flatnonzero(np.isin(answers.prompt_of, np.unique(table.prompts))))
    featurizer = Featurizer.fit({key: block[rows] for key, block in raw.items()}, components=components)
    features = featurizer.transform(raw)
    return features[:, features.std(0) > 0]


def _measure(replies: list[str]) -> NDArray[np.float64]:
    rows = []
    for reply in replies:
        words = _WORD.findall(reply.lower())
        n = max(len(words), 1)
        informal = sum("'" in word or word in _INFORMAL for word in words)
        rows.append(
            (
                np.log1p(len(words)),
                np.log1p(len(_LIST.findall(reply))),
                sum(word in _HEDGES for word in words) / n,
                np.log1p(reply.count("?")),
                informal / n,
                np.log1p(reply.count("!") + sum(word in _EXCITED for word in words)),
                -sum(map(len, words)) / n,
            )
        )
    return np.asarray(rows, dtype=np.float64)
