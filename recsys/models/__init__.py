"""Retrieval models, all of them `recsys.types.Retriever`s."""

from recsys.models.ease import Ease
from recsys.models.gnolr import Gnolr
from recsys.models.ordinal import nested_ordinal_loss
from recsys.models.popularity import Popularity

__all__ = ["Ease", "Gnolr", "Popularity", "nested_ordinal_loss"]
