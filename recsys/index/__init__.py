"""Maximum-inner-product search over items: an exact scan, FAISS, the choice between its kinds, updates and files."""

from recsys.index.choosing import IndexPlan, MeasuredRecall, Trial, choose_index, measure_recall
from recsys.index.exact import ExactIndex, ItemIndex
from recsys.index.faiss_index import FaissIndex
from recsys.index.live import LiveIndex, Snapshot
from recsys.index.settings import IndexKind, IndexSettings
from recsys.index.storage import LoadedIndex, load_index, save_index

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "IndexKind",
    "IndexPlan",
    "IndexSettings",
    "ItemIndex",
    "LiveIndex",
    "LoadedIndex",
    "MeasuredRecall",
    "Snapshot",
    "Trial",
    "choose_index",
    "load_index",
    "measure_recall",
    "save_index",
]
