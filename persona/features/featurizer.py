"""Raw features made into what rewards are linear in: every block standardised, wide ones cut to leading directions.

Fitted once on training replies and frozen, so that a feature means the same in training and in use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from persona.artefacts import load_artefact, save_artefact
from persona.errors import DataError, ShapeError

LIMIT = 5.0
"""Standardised features are cut here, so that one odd reply cannot rule a user's posterior."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """How one kind of raw features is standardised.

    Attributes:
        mean: Shape (H,).
        map: Multiplier of each column (H,), 0 for one that did not vary in training; or the matrix (H, h) from
            deviations to standardised principal components.
    """

    mean: Tensor
    map: Tensor

    @property
    def dim(self) -> int:
        """Columns that come out."""
        return self.map.shape[-1]

    def __call__(self, raw: Tensor) -> Tensor:
        """Standardised rows, not cut. Shape (N, dim)."""
        deviation = raw.detach().float().cpu() - self.mean
        return deviation * self.map if self.map.ndim == 1 else deviation @ self.map


@dataclass(frozen=True, slots=True, eq=False)
class Featurizer:
    """Standardised features from blocks of raw ones, side by side.

    Attributes:
        blocks: By name, in the order of their columns.
        columns: Names of raw columns, for blocks whose columns have names; checked when it is loaded.
    """

    blocks: Mapping[str, Block]
    columns: Mapping[str, Sequence[str]]

    @classmethod
    def fit(
        cls,
        raw: Mapping[str, Tensor],
        *,
        components: Mapping[str, int] | None = None,
        columns: Mapping[str, Sequence[str]] | None = None,
    ) -> "Featurizer":
        """Scales and directions from training replies.

        Args:
            raw: Raw features of N training replies by the name of their block. Shapes (N, H).
            components: For blocks to be cut, how many principal components to keep, at most min(N - 1, H).
            columns: Names of raw columns, by block.

        Raises:
            DataError: No block, or fewer than two replies.
            ShapeError: A block is not a matrix, has another number of rows, or other columns than named.
        """
        rows = {len(part) for part in raw.values()}
        if not raw or min(rows) < 2:
            raise DataError(
                f"`raw` must hold at least 2 replies to scale by; got {min(rows, default=0)} in blocks "
                f"{', '.join(raw) or 'none'}. Pass more."
            )
        wanted, names = components or {}, columns or {}
        for name, part in raw.items():
            _check_block(name, part, max(rows), len(names[name]) if name in names else None)
        blocks = {
            name: _fit_block(part.detach().float().cpu(), wanted.get(name)) for name, part in raw.items()
        }
        return cls(blocks, {name: tuple(names[name]) for name in raw if name in names})

    @property
    def dim(self) -> int:
        """Number of features D."""
        return sum(block.dim for block in self.blocks.values())

    def transform(self, raw: Mapping[str, Tensor]) -> Tensor:
        """Features of replies, standardised by the training replies and cut at +-`LIMIT`.

        Args:
            raw: The blocks that the featurizer was fitted with. Shapes (N, H).

        Returns:
            Shape (N, D), float32, on the CPU.

        Raises:
            ShapeError: A block is missing, too many, or of another width.
        """
        if set(raw) != set(self.blocks):
            raise ShapeError(
                f"`raw` must hold the blocks {', '.join(self.blocks)}; got {', '.join(raw) or 'none'}. Compute the "
                "same features as in fitting."
            )
        rows = len(next(iter(raw.values())))
        for name, block in self.blocks.items():
            _check_block(name, raw[name], rows, len(block.mean))
        return torch.cat([block(raw[name]) for name, block in self.blocks.items()], dim=1).clamp(
            -LIMIT, LIMIT
        )

    def save(self, folder: Path) -> None:
        """Write `featurizer.safetensors` and `featurizer.json` into `folder`."""
        tensors = {
            f"{name}.{part}": getattr(block, part)
            for name, block in self.blocks.items()
            for part in ("mean", "map")
        }
        facts = {"blocks": list(self.blocks), "columns": {name: list(c) for name, c in self.columns.items()}}
        save_artefact(folder, "featurizer", kind="text featurizer", tensors=tensors, facts=facts)

    @classmethod
    def load(cls, folder: Path, *, columns: Mapping[str, Sequence[str]] | None = None) -> "Featurizer":
        """The featurizer that `save` wrote.

        Args:
            folder: Where it was saved.
            columns: Names of raw columns as they are computed now, by block.

        Raises:
            DataError: The files are missing or damaged, or a block was fitted to other columns.
        """
        tensors, facts = load_artefact(folder, "featurizer", kind="text featurizer")
        for name, now in (columns or {}).items():
            if (then := facts["columns"].get(name, list(now))) != list(now):
                raise DataError(
                    f"`{folder}` must hold a featurizer with the {len(now)} columns of `{name}` that this version "
                    f"computes; got {len(then)} others. Fit it again."
                )
        blocks = {name: Block(tensors[f"{name}.mean"], tensors[f"{name}.map"]) for name in facts["blocks"]}
        return cls(blocks, {name: tuple(known) for name, known in facts["columns"].items()})


def _fit_block(values: Tensor, components: int | None) -> Block:
    mean = values.mean(0)
    if components is None:
        return Block(mean, _inverse_deviation(values))
    centred = values - mean
    directions = _principal_components(centred, min(components, len(values) - 1, values.shape[1]))
    return Block(mean, directions * _inverse_deviation(centred @ directions))


def _check_block(name: str, part: Tensor, rows: int, width: int | None) -> None:
    if part.ndim != 2 or part.shape[0] != rows or width not in (None, part.shape[1]):
        raise ShapeError(
            f"Block `{name}` must have shape ({rows}, {'H' if width is None else width}), one row for each reply; got "
            f"{tuple(part.shape)}. Compute it for the same replies, in the same way as in fitting."
        )


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
