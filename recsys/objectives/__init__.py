"""Losses of re-ranking: one file an objective, each a pure function of named tensors to one loss a list."""

from recsys.objectives.irpo import ListObjective, irpo_loss, listwise_loss, single_pair_loss

__all__ = ["ListObjective", "irpo_loss", "listwise_loss", "single_pair_loss"]
