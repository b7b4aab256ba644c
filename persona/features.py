"""Features that rewards are linear in: generic counts over a reply's text, and directions of hidden states.

The counts are broad and shallow on purpose. They are not the named attributes: which of those can be read
from the features, and how well, is measured by `probe_attributes` and belongs into every report, because it
bounds what any profile over these features can learn.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError
from persona.rewards.attributes import ATTRIBUTES

LIMIT = 5.0
"""Standardised features are cut here, so that one odd reply cannot rule a user's posterior."""

WORD_GROUPS: Mapping[str, frozenset[str]] = {
    "first_person": frozenset("i me my mine we us our i'd i'm i've i'll we'd we're we've we'll".split()),
    "second_person": frozenset("you your yours you'd you're you've you'll yourself".split()),
    "causal_words": frozenset("because since so therefore thus hence why reason".split()),
    "contrast_words": frozenset("but though although however yet while instead unless despite".split()),
    "joining_words": frozenset("and also plus too both with then".split()),
    "hedges": frozenset(
        "may might maybe could would perhaps possibly seem seems probably quite rather".split()
    ),
    "negations": frozenset(
        "no not never nothing none don't doesn't isn't can't won't didn't without".split()
    ),
    "positive_words": frozenset(
        "good great best better nice fine fun enjoy enjoyed like love loved perfect beautiful favourite "
        "favorite "
        "happy glad wonderful amazing excellent fantastic".split()
    ),
    "polite_words": frozenset("please thanks thank hello hi welcome sorry dear friend hope".split()),
    "determiners": frozenset("a an the this that these those".split()),
    "questioning_words": frozenset("what which who how where when shall should want".split()),
}
COUNTED_MARKS = {"exclamation_marks": "!", "question_marks": "?", "commas": ","}
SURFACE_NAMES = (
    "words",
    "sentences",
    *COUNTED_MARKS,
    "other_marks",
    "contractions",
    *WORD_GROUPS,
    "capital_letters",
    "digits",
    "letters_per_word",
    "words_per_sentence",
    "different_words_share",
    "long_words_share",
    "short_words_share",
    "ends_in_question",
)
"""Order of the surface axis S: counts as square roots up to `digits`, then ratios as they are."""

LENGTH_COLUMN = SURFACE_NAMES.index("words")
"""Column that the length-only rule reads, in the surface features and in a `TextFeaturizer`'s output."""

_SLOT = re.compile(r"<[a-z_]+>")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_SENTENCE = re.compile(r"[^.!?]*\w[^.!?]*")


def surface_features(replies: Sequence[str]) -> NDArray[np.float32]:
    """Counts of words, marks and word groups in each reply; slots such as `<title>` are left out.

    Counts are square roots (the deviation of a count grows like its root, so this evens it out); shares lie
    in 0..1; `letters_per_word` and `words_per_sentence` are plain means. A reply without words is zero
    throughout, but for its marks and digits.

    Args:
        replies: N texts.

    Returns:
        Shape (N, S), float32, columns in the order of `SURFACE_NAMES`.
    """
    rows = [_count(_SLOT.sub(" ", reply)) for reply in replies]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), len(SURFACE_NAMES))


def _count(text: str) -> list[float]:
    words = _WORD.findall(text.replace("\u2019", "'").lower())
    n = len(words)
    sentences = len(_SENTENCE.findall(text))
    marks = [text.count(mark) for mark in COUNTED_MARKS.values()]
    counts = [
        n,
        sentences,
        *marks,
        sum(text.count(mark) for mark in ':;()\u2013\u2014-"*'),
        sum("'" in word for word in words),
        *(sum(word in group for word in words) for group in WORD_GROUPS.values()),
        sum(letter.isupper() for letter in text),
        sum(letter.isdigit() for letter in text),
    ]
    lengths = [len(word) for word in words]
    ratios = [
        sum(lengths) / max(n, 1),
        n / max(sentences, 1),
        len(set(words)) / max(n, 1),
        sum(length >= 7 for length in lengths) / max(n, 1),
        sum(length <= 3 for length in lengths) / max(n, 1),
        float(text.rstrip().endswith("?")),
    ]
    return [float(count) ** 0.5 for count in counts] + ratios


@dataclass(frozen=True, slots=True, eq=False)
class TextFeaturizer:
    """Standardised features of replies: surface counts, then leading directions of hidden states, if given.

    Fitted once on training replies and frozen, so that a feature means the same in training and in use. A
    column that did not vary among the training replies is zero for ever.

    Attributes:
        surface_mean: Shape (S,).
        surface_scale: What a deviation is multiplied with; 0 for a constant column. Shape (S,).
        hidden_mean: Shape (H,); empty without hidden states.
        hidden_map: From hidden states to standardised principal components. Shape (H, h).
    """

    surface_mean: Tensor
    surface_scale: Tensor
    hidden_mean: Tensor
    hidden_map: Tensor

    @classmethod
    def fit(
        cls, replies: Sequence[str], hidden: Tensor | None = None, *, hidden_dim: int = 16
    ) -> "TextFeaturizer":
        """Scales and components from training replies.

        Args:
            replies: N training replies.
            hidden: A language model's hidden state for each reply. Shape (N, H), float; None for surface
                alone.
            hidden_dim: Principal components to keep, at most min(N - 1, H).

        Raises:
            DataError: Fewer than two replies.
            ShapeError: `hidden` has not one row for each reply.
        """
        if len(replies) < 2:
            raise DataError(
                f"`replies` must hold at least 2 texts to scale by; got {len(replies)}. Pass more."
            )
        surface = torch.from_numpy(surface_features(replies))
        if hidden is None:
            return cls(surface.mean(0), _inverse_deviation(surface), torch.zeros(0), torch.zeros(0, 0))
        _check_hidden(hidden, len(replies), None)
        states = hidden.detach().float().cpu()
        mean = states.mean(0)
        components = _principal_components(states - mean, min(hidden_dim, len(replies) - 1, hidden.shape[1]))
        scale = _inverse_deviation((states - mean) @ components)
        return cls(surface.mean(0), _inverse_deviation(surface), mean, components * scale)

    @property
    def dim(self) -> int:
        """Number of features D = S + h."""
        return len(self.surface_mean) + self.hidden_map.shape[1]

    def transform(self, replies: Sequence[str], hidden: Tensor | None = None) -> Tensor:
        """Features of replies, standardised by the training replies and cut at +-`LIMIT`.

        Args:
            replies: N texts.
            hidden: Hidden states, if and only if the featurizer was fitted with them. Shape (N, H).

        Returns:
            Shape (N, D), float32, on the CPU.

        Raises:
            ShapeError: `hidden` does not fit the replies or the fitted width.
        """
        parts = [(torch.from_numpy(surface_features(replies)) - self.surface_mean) * self.surface_scale]
        if hidden is not None or len(self.hidden_mean):
            states = torch.zeros(0, 0) if hidden is None else hidden.detach().float().cpu()
            _check_hidden(states, len(replies), len(self.hidden_mean))
            parts.append((states - self.hidden_mean) @ self.hidden_map)
        return torch.cat(parts, dim=1).clamp(-LIMIT, LIMIT)

    def save(self, folder: Path) -> None:
        """Write `featurizer.safetensors` and `featurizer.json` into `folder`."""
        tensors = {
            "surface_mean": self.surface_mean,
            "surface_scale": self.surface_scale,
            "hidden_mean": self.hidden_mean,
            "hidden_map": self.hidden_map,
        }
        facts = {"surface_names": list(SURFACE_NAMES)}
        save_artefact(folder, "featurizer", kind="text featurizer", tensors=tensors, facts=facts)

    @classmethod
    def load(cls, folder: Path) -> "TextFeaturizer":
        """The featurizer that `save` wrote.

        Raises:
            DataError: The files are missing or damaged, or count other things than this version does.
        """
        tensors, facts = load_artefact(folder, "featurizer", kind="text featurizer")
        if facts["surface_names"] != list(SURFACE_NAMES):
            raise DataError(
                f"`{folder}` must hold a featurizer with the {len(SURFACE_NAMES)} surface counts of this "
                f"version; got {len(facts['surface_names'])} others. Fit it again."
            )
        return cls(**tensors)


def probe_attributes(
    features: Tensor,
    attributes: NDArray[np.float64],
    *,
    seed: int,
    names: Sequence[str] = ATTRIBUTES,
    ridge: float = 1.0,
    test_share: float = 0.3,
) -> dict[str, float]:
    """How much of each attribute's variance a ridge regression reads from the features, on replies left out.

    Args:
        features: Shape (N, D), float.
        attributes: Measured attributes of the same replies. Shape (N, A).
        seed: Draws which replies are left out.
        names: Names of the A attributes.
        ridge: Penalty on standardised weights, in units of one reply.
        test_share: Share of replies left out.

    Returns:
        R2 by name: 1 is perfect, 0 is no better than the mean; NaN for an attribute that does not vary.

    Raises:
        ShapeError: Rows of `features` and `attributes`, or columns and `names`, do not match.
    """
    x, y = features.double().cpu().numpy(), np.asarray(attributes, dtype=np.float64)
    if y.shape != (len(x), len(names)):
        raise ShapeError(
            f"`attributes` must have shape {(len(x), len(names))}, a row for each row of `features` and a "
            f"column for each name; got {y.shape}. Measure the same replies that the features describe."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [round(test_share * len(x))])
    centre, target = x[train].mean(0), y[train].mean(0)
    deviation = x[train].std(0)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    z = (x[train] - centre) * scale
    weights = np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ (y[train] - target))
    residual = y[test] - target - ((x[test] - centre) * scale) @ weights
    total = ((y[test] - y[test].mean(0)) ** 2).sum(0)
    unexplained = np.divide((residual**2).sum(0), total, out=np.full_like(total, np.nan), where=total > 0)
    return {name: float(1.0 - share) for name, share in zip(names, unexplained, strict=True)}


def _inverse_deviation(values: Tensor) -> Tensor:
    deviation = values.std(0, correction=0)
    # Rounding leaves a constant column with a deviation of about 1e-7 of its size: that is no variation.
    varies = deviation > 1e-5 * values.abs().amax(0)
    return torch.where(varies, 1.0 / deviation.clamp_min(torch.finfo(deviation.dtype).tiny), 0.0)


def _principal_components(centred: Tensor, count: int) -> Tensor:
    """Leading eigenvectors (H, count) of the covariance, each with its largest entry positive."""
    wide = centred.shape[1] > centred.shape[0]
    # The smaller of the two Gram matrices has the same spectrum and is the cheaper one to decompose.
    gram = (centred @ centred.T if wide else centred.T @ centred).double()
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :count]
    components = centred.double().T @ vectors if wide else vectors
    components = components / components.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    signs = components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
    oriented: Tensor = components * signs
    return oriented.float()


def _check_hidden(hidden: Tensor, rows: int, width: int | None) -> None:
    if hidden.ndim != 2 or hidden.shape[0] != rows or width not in (None, hidden.shape[1]):
        raise ShapeError(
            f"`hidden` must have shape ({rows}, {'H' if width is None else width}), one row for each reply; "
            f"got {tuple(hidden.shape)}. Pass the hidden states of the same replies, from the model used in "
            "fitting."
        )
