"""Retrieval models, all of them `recsys.types.Retriever`s."""

from recsys.models.als import IAls
from recsys.models.bpr import Bpr
from recsys.models.ease import Ease
from recsys.models.gnolr import Gnolr
from recsys.models.item_knn import ItemKnn
from recsys.models.ordinal import nested_ordinal_loss
from recsys.models.popularity import Popularity
from recsys.models.recent_popularity import fit_recent_popularity
from recsys.models.sasrec import SasRec

__all__ = [
    "Bpr",
    "Ease",
    "Gnolr",
    "IAls",
    "ItemKnn",
    "Popularity",
    "SasRec",
    "fit_recent_popularity",
    "nested_ordinal_loss",
]
