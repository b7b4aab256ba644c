"""A light language model that tells how a user comes to a decision and then names the option.

It reads a scene and writes the stages of a rationale, one a line, and the label of the option (`decision_text`). Asked
for probabilities, it writes several rationales, is given each up to the label, and its next tokens are held to the
labels of the options on offer (UserMirrorer, arXiv 2508.18142). A label is a letter, as published, or any other text,
such as the option's own words, where a model is too small to find a letter. Labels are cut into tokens together with
the text that they end, never alone: a tokenizer that merges a letter with what stands before it changes nothing.

Shape letters: S scenes, D rationales of each, N = S x D, O options.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from persona.policy.conditioned import ConditionedPolicy
from simulators.errors import MirrorError
from simulators.mirror.rationales import STAGES
from simulators.randomness import keyed_seeds

Values = NDArray[np.float64]
Tokens = tuple[int, ...]

QUESTION = "How does this person decide?"
_BEHAVIOUR = re.compile(rf"^\s*{STAGES[-1]}:.*\Z", re.MULTILINE | re.DOTALL)


def decision_prompt(scene: str) -> list[dict[str, str]]:
    """Asks for a decision about the scene that `scene_text` put into words.

    One message: a prompt that is too long for a model's window is an error then, and never loses its system message.
    """
    return [{"role": "user", "content": f"{scene}\n{QUESTION}"}]


def decision_text(thoughts: str, label: str) -> str:
    """A decision as the light model writes it: the thoughts, which may be empty, and the option's label."""
    return "\n".join([*([thoughts] if thoughts else []), f"{STAGES[-1]}: {label}"])


def thoughts_in(text: str) -> str:
    r"""The thoughts of a decision as it was written, whether it came to its label or broke off.

    Example:
        >>> thoughts_in("stimulus: the foxes\nbehaviour: B")
        'stimulus: the foxes'
    """
    return _BEHAVIOUR.sub("", text).strip()


class LightModel:
    """A conditioned policy, taken as the average user's, that tells and scores decisions.

    Args:
        policy: Writes and scores.
        temperature: Of the rationales.
        top_p: Share of probability kept when they are drawn.
        max_new_tokens: Longest decision, in tokens.
    """

    def __init__(
        self,
        policy: ConditionedPolicy,
        *,
        temperature: float = 1.0,
        top_p: float = 0.9,
        max_new_tokens: int = 160,
    ) -> None:
        self.policy = policy
        self._temperature = temperature
        self._top_p = top_p
        self._max_new_tokens = max_new_tokens

    def tell(self, scenes: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        """The thoughts of one decision about each scene; one seed a scene."""
        told = self.policy.generate(
            [decision_prompt(scene) for scene in scenes],
            seeds=seeds,
            max_new_tokens=self._max_new_tokens,
            temperature=self._temperature,
            top_p=self._top_p,
        )
        return [thoughts_in(text) for text in told]

    @torch.inference_mode()
    def score(
        self, scenes: Sequence[str], labels: Sequence[Sequence[str]], thoughts: Sequence[str]
    ) -> Values:
        """P(option) given each rationale's thoughts, the next tokens being held to the labels on offer.

        Args:
            scenes: One a rationale, from `scene_text`.
            labels: Of the options of each scene, such as `option_labels` gives them.
            thoughts: N of them.

        Returns:
            Shape (N, largest number of options), zero where a scene has fewer; rows sum to 1.

        Raises:
            MirrorError: A scene has no option, or two labels of a scene become the same tokens.
            ModelError: A decision does not fit the model's window.
        """
        forks: list[_Fork] = []
        owners: list[int] = []
        table = np.full((len(thoughts), max(map(len, labels), default=0)), -np.inf)
        for row, (scene, own, told) in enumerate(zip(scenes, labels, thoughts, strict=True)):
            endings = [decision_text(told, label) for label in own]
            ids = [r.ids for r in self.policy.encode_replies([decision_prompt(scene)] * len(own), endings)]
            found = list(_forks(ids))
            forks += found
            owners += [row] * len(found)
            table[row, : len(own)] = 0.0
        if forks:
            scored = self.policy.next_log_probs([f.prefix for f in forks], [f.tokens for f in forks])
            for row, fork, logits in zip(owners, forks, scored.double().cpu().numpy(), strict=True):
                held = log_softmax(logits[: len(fork.tokens)])
                for members, value in zip(fork.members, held, strict=True):
                    table[row, list(members)] += value
        probabilities: Values = np.exp(table)
        return probabilities

    def options_by_rationale(
        self, scenes: Sequence[str], labels: Sequence[Sequence[str]], *, rationales: int, seeds: Sequence[int]
    ) -> Values:
        """P(option) given each of several rationales of its own.

        Args:
            scenes: From `scene_text`.
            labels: Of the options of each scene.
            rationales: D, at least 1.
            seeds: One a scene; they draw the rationales.

        Returns:
            Shape (S, D, O), zero where a scene has fewer options.

        Raises:
            MirrorError: There is no rationale; or as for `score`.
        """
        if rationales < 1:
            raise MirrorError(
                f"`rationales` must be at least 1; got {rationales}. The published number is 5."
            )
        repeated = [scene for scene in scenes for _ in range(rationales)]
        named = [own for own in labels for _ in range(rationales)]
        luck = [one for seed in seeds for one in keyed_seeds(seed, np.arange(rationales))]
        found = self.score(repeated, named, self.tell(repeated, seeds=luck))
        return found.reshape(len(scenes), rationales, found.shape[1])


def mean_over_rationales(probabilities: ArrayLike, n_options: ArrayLike) -> Values:
    """P(option) of a scene, averaged over its rationales and one more that knows nothing.

    (sum_d p_d + uniform) / (D + 1). Differs from UserMirrorer, which averages the D alone: the few rationales that are
    drawn may all pass over an option, which then would count as impossible.

    Args:
        probabilities: P(option) given each rationale. Shape (S, D, O).
        n_options: Options of each scene. Shape (S,).

    Returns:
        Shape (S, O), positive where a scene has the option; rows sum to 1.
    """
    given, counts = np.asarray(probabilities, np.float64), np.asarray(n_options, np.int64)
    blank = np.where(np.arange(given.shape[2]) < counts[:, None], 1 / counts[:, None], 0.0)
    mean: Values = (given.sum(axis=1) + blank) / (given.shape[1] + 1)
    return mean


class _Fork(NamedTuple):
    """Where token sequences that agreed so far go on differently.

    prefix: What they agree on.
    tokens: The different tokens that come next.
    members: For each of these, which sequences go on with it.
    """

    prefix: Tokens
    tokens: Tokens
    members: tuple[tuple[int, ...], ...]


def _forks(sequences: Sequence[Tokens]) -> Iterator[_Fork]:
    """Every fork of the tree that the sequences form; mostly one, where the letters differ.

    Raises:
        MirrorError: There is none, two are equal, or one begins another.
    """
    if not sequences:
        raise MirrorError("A scene must have at least one option; got none. Leave such scenes out.")
    open_groups = [(tuple(range(len(sequences))), 0)] if len(sequences) > 1 else []
    while open_groups:
        members, depth = open_groups.pop()
        shortest = min(len(sequences[m]) for m in members)
        first = sequences[members[0]]
        while depth < shortest and len({sequences[m][depth] for m in members}) == 1:
            depth += 1
        if depth == shortest:
            raise MirrorError(
                f"The labels of a scene's options must differ as tokens; got the same {shortest} tokens for options "
                f"{list(members[:3])}. Give every option of a scene its own label."
            )
        split: dict[int, list[int]] = {}
        for member in members:
            split.setdefault(sequences[member][depth], []).append(member)
        yield _Fork(first[:depth], tuple(split), tuple(tuple(group) for group in split.values()))
        open_groups += [(tuple(group), depth + 1) for group in split.values() if len(group) > 1]
