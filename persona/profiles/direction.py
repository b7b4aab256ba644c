"""The direction profile: what a user wants, as a unit vector over named reply attributes, set by sliders.

A reply's worth along a direction v is v . a, with a its standardised attributes. The average user is the zero
vector.

Source: Wang et al. (2024), "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference
Alignment with Multi-Objective Rewards".
"""

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from persona.errors import DataError, ShapeError
from persona.rewards.attributes import ATTRIBUTES


def direction_from_sliders(
    sliders: Mapping[str, float], *, unit: bool = True, names: Sequence[str] = ATTRIBUTES
) -> Tensor:
    """The direction that sliders point in.

    Args:
        sliders: Wanted amount by attribute, -1 (much less than usual) to 1 (much more); those not named are
            0.
        unit: Scale to length 1, as published: only the proportions count. Without it a vector longer than 1
            is scaled down to 1 and a shorter one is kept, so that a lone slider at 0.5 asks for half as much
            as at 1.
        names: The attribute axis A.

    Returns:
        Shape (A,), float32; zeros, the average user, if all sliders are 0.

    Raises:
        DataError: An unknown attribute, or a value that is not a number from -1 to 1.

    Example:
        >>> direction_from_sliders({"brevity": 0.6, "warmth": -0.8})
        tensor([ 0.6000, -0.8000,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    vector = torch.zeros(len(names))
    for name, value in sliders.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise DataError(
                f"A slider must be one of {', '.join(names)}; got `{name}`. Did you mean `{near[0]}`?"
            )
        if not -1.0 <= value <= 1.0:
            raise DataError(
                f"Slider `{name}` must lie between -1 and 1; got {value}. Use 1 for as much as possible."
            )
        vector[names.index(name)] = value
    return _shorten(vector, unit=unit)


def combine_directions(directions: Tensor, weights: Tensor) -> Tensor:
    """The unit vector along a weighted sum of directions: more of one user's way, less of another's.

    Args:
        directions: Shape (K, A), float.
        weights: Any sign. Shape (K,), float.

    Returns:
        Shape (A,); zeros where the sum cancels out.

    Raises:
        ShapeError: There is not one weight for each direction.
    """
    if directions.ndim != 2 or weights.shape != directions.shape[:1]:
        raise ShapeError(
            "`directions` must have shape (K, A) and `weights` (K,); got "
            f"{tuple(directions.shape)} and {tuple(weights.shape)}. Pass one weight for each direction."
        )
    return _shorten(weights @ directions, unit=True)


def directions_between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Unit vectors along the shorter arc between two directions: a fan of trade-offs.

    Args:
        start: Shape (A,), float; any length.
        end: The same; not opposite to `start`.
        share: How far from start (0) to end (1) each is, in angle. Shape (F,), float.

    Returns:
        Shape (F, A).

    Raises:
        ShapeError: The two differ in shape.
        DataError: One is zero, or they are opposite, so that there is no shorter arc.

    Example:
        >>> directions_between(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.5]))
        tensor([[0.7071, 0.7071]])

    Source: Shoemake (1985), "Animating Rotation with Quaternion Curves", SIGGRAPH.
    """
    if start.ndim != 1 or start.shape != end.shape:
        raise ShapeError(
            f"`start` and `end` must have one shape (A,); got {tuple(start.shape)} and {tuple(end.shape)}. "
            "Pass two directions over the same attributes."
        )
    first, second = (_shorten(vector.double(), unit=True) for vector in (start, end))
    across = second - (first @ second) * first
    if not (first.any() and second.any()) or (across.norm() < 1e-6 and first @ second < 0):
        raise DataError(
            "`start` and `end` must not be zero, nor opposite; got lengths "
            f"{float(start.norm()):.2g} and {float(end.norm()):.2g} with cosine {float(first @ second):.2g}. "
            "Go by way of a third direction."
        )
    angle = share.double() * torch.atan2(across.norm(), first @ second)
    turned: Tensor = torch.outer(angle.cos(), first) + torch.outer(angle.sin(), _shorten(across, unit=True))
    return turned.to(start)


def direction_reward(attributes: Tensor, direction: Tensor) -> Tensor:
    """What each of N replies is worth to each of B users, v . a.

    Args:
        attributes: Standardised attributes; whitened ones if directions should not drag one another along,
            see `decorrelation`. Shape (N, A), float.
        direction: Shape (B, A), float; a row of zeros finds all replies equal.

    Returns:
        Shape (B, N), in standard deviations for unit directions over whitened attributes.

    Raises:
        ShapeError: The two have different numbers of attributes.
    """
    if attributes.ndim != 2 or direction.ndim != 2 or attributes.shape[1] != direction.shape[1]:
        raise ShapeError(
            "`attributes` must have shape (N, A) and `direction` (B, A) with one A; got "
            f"{tuple(attributes.shape)} and {tuple(direction.shape)}. Measure the attributes that the "
            "sliders name."
        )
    return direction @ attributes.T


def decorrelation(attributes: Tensor, *, floor: float = 0.05) -> Tensor:
    """The symmetric matrix W for which the columns of `attributes @ W` are uncorrelated, with variance 1.

    Of all such matrices the symmetric one changes the attributes least, so each keeps its name. Use it where
    long replies are also warm ones, and a slider for one should not drag the other.

    Args:
        attributes: Centred, standardised attributes of reference replies. Shape (N, A), float.
        floor: Least variance of a combination of attributes; combinations that hardly vary are not blown up.

    Returns:
        Shape (A, A), float32.

    Raises:
        DataError: Fewer than two replies.

    Source: Kessy, Lewin & Strimmer (2018), "Optimal Whitening and Decorrelation", The American Statistician
    72(4).
    """
    if len(attributes) < 2:
        raise DataError(
            f"`attributes` must hold at least 2 replies; got {len(attributes)}. Measure more reference "
            "replies."
        )
    values, vectors = torch.linalg.eigh(torch.cov(attributes.double().T, correction=0))
    whitening: Tensor = (vectors * values.clamp_min(floor).rsqrt()) @ vectors.T
    return whitening.float()


def direction_as_text(direction: Tensor, *, names: Sequence[str] = ATTRIBUTES) -> str | None:
    """A direction in words and whole numbers, for a model that is conditioned by its prompt.

    Weights are hundredths of the unit vector, as in the published arithmetic prompt; attributes of weight 0
    are left out.

    Args:
        direction: Shape (A,), float.
        names: The attribute axis.

    Returns:
        One or two sentences; None for the average user.

    Raises:
        ShapeError: There is not one entry for each name.

    Example:
        >>> direction_as_text(torch.tensor([0.6, -0.8, 0.0, 0.0, 0.0, 0.0]))
        'This user rates a reply as 60 * brevity - 80 * warmth. Write a reply that is rated high.'
    """
    if direction.shape != (len(names),):
        raise ShapeError(
            f"`direction` must have shape ({len(names)},), one entry for each of {', '.join(names)}; got "
            f"{tuple(direction.shape)}. Pass one row at a time."
        )
    weights = [round(100 * value) for value in direction.tolist()]
    terms = [
        f"{'-' if w < 0 else '+'} {abs(w)} * {name}" for name, w in zip(names, weights, strict=True) if w
    ]
    if not terms:
        return None
    rating = " ".join(terms).removeprefix("+ ")
    return f"This user rates a reply as {rating}. Write a reply that is rated high."


def _shorten(vector: Tensor, *, unit: bool) -> Tensor:
    length = float(vector.norm())
    # Below rounding, a sum of opposite directions has no direction of its own.
    if length < 1e-6:
        return torch.zeros_like(vector)
    return vector / length if unit or length > 1.0 else vector
