"""Metrics of ranked lists."""

from recsys.metrics.ranking import PerUser, ndcg_at_k, recall_at_k

__all__ = ["PerUser", "ndcg_at_k", "recall_at_k"]
