"""Metrics of ranked lists, of predicted chances, and of what lists do to users and catalogue.

One definition each, printed by `definitions`; users without a value are counted, never filled in.
"""

from recsys.metrics.calibration import ReliabilityCurve, calibration_error, reliability_curve
from recsys.metrics.definitions import DEFINITIONS, definitions
from recsys.metrics.discrimination import GroupedAuc, auc, full_list_auc, grouped_auc
from recsys.metrics.exposure import (
    PopularityLift,
    catalogue_coverage,
    exposure_entropy,
    exposure_gini,
    item_popularity,
    novelty,
    popularity_lift,
)
from recsys.metrics.hits import PerUser, relevant_levels
from recsys.metrics.pointwise import Containment, LevelMetrics, containment, exact_level_nll, level_metrics
from recsys.metrics.ranking import (
    METRICS,
    MetricDefinition,
    graded_ndcg_at_k,
    hit_rate_at_k,
    map_at_k,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    ranking_metrics,
    recall_at_k,
    recall_capped_at_k,
)
from recsys.metrics.sampled import SampledRanking, sampled_ranking
from recsys.metrics.slices import keep_items, slice_items, slice_users, slice_values
from recsys.metrics.variety import genre_calibration, intra_list_diversity

__all__ = [
    "DEFINITIONS",
    "METRICS",
    "Containment",
    "GroupedAuc",
    "LevelMetrics",
    "MetricDefinition",
    "PerUser",
    "PopularityLift",
    "ReliabilityCurve",
    "SampledRanking",
    "auc",
    "calibration_error",
    "catalogue_coverage",
    "containment",
    "definitions",
    "exact_level_nll",
    "exposure_entropy",
    "exposure_gini",
    "full_list_auc",
    "genre_calibration",
    "graded_ndcg_at_k",
    "grouped_auc",
    "hit_rate_at_k",
    "intra_list_diversity",
    "item_popularity",
    "keep_items",
    "level_metrics",
    "map_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "novelty",
    "popularity_lift",
    "precision_at_k",
    "ranking_metrics",
    "recall_at_k",
    "recall_capped_at_k",
    "relevant_levels",
    "reliability_curve",
    "sampled_ranking",
    "slice_items",
    "slice_users",
    "slice_values",
]
