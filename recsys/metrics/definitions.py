"""Every figure's definition in one sentence, for reports to print beside their tables."""

from collections.abc import Iterable

from recsys.errors import RecsysError
from recsys.metrics.exposure import EXPOSURE
from recsys.metrics.pointwise import POINTWISE
from recsys.metrics.ranking import METRICS
from recsys.metrics.slices import SLICES
from recsys.metrics.variety import VARIETY

FULL_LIST: dict[str, str] = {
    "full_list_auc": "Chance that a held-out item that reached the level scores above any other item of the catalogue "
    "that may be offered, ties 1/2; mean over users.",
    "full_list_gauc": "As full_list_auc, the mean over users weighted by their relevant items.",
}

DEFINITIONS: dict[str, str] = {
    **{name: definition.text for name, definition in METRICS.items()},
    **FULL_LIST,
    **POINTWISE,
    **EXPOSURE,
    **VARIETY,
    **SLICES,
}


def definitions(names: Iterable[str]) -> dict[str, str]:
    """One sentence for each figure, its cut-off filled in.

    Args:
        names: Keys of `DEFINITIONS`, with or without a cut-off, such as "ndcg@10" or "auc". A sampled metric is not
            among them: `sampled_ranking` brings its own sentences.

    Returns:
        By name as given.

    Raises:
        RecsysError: A name is unknown.

    Example:
        >>> definitions(["recall@20"])
        {'recall@20': "Share of a user's relevant items among the first k: hits / |relevant|. Here k = 20."}
    """
    found = {}
    for name in names:
        base, _, cutoff = name.partition("@")
        if base not in DEFINITIONS or not (cutoff.isdigit() or name == base):
            raise RecsysError(
                f"`names` must be figures of this package, such as 'ndcg@10'; got {name!r}. "
                f"Choose from {', '.join(DEFINITIONS)}."
            )
        found[name] = DEFINITIONS[base] + (f" Here k = {cutoff}." if cutoff else "")
    return found
