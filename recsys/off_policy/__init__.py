"""What a policy would have earned, told from the log of another: estimators, intervals, and how far to trust them."""

from recsys.off_policy.diagnostics import Overlap, measure_overlap
from recsys.off_policy.estimators import ESTIMATORS, Estimator, Terms
from recsys.off_policy.evaluate import OffPolicyEstimate, PolicyEvaluation, evaluate_policy
from recsys.off_policy.policies import (
    logged_policy,
    popular_policy,
    read_policy,
    softmax_policy,
    uniform_policy,
)
from recsys.off_policy.reward_model import (
    RewardConfig,
    RewardEstimates,
    cross_fit_rewards,
    rewards_from_table,
)
from recsys.off_policy.slate import SLATE_ESTIMATORS, SlateLog, cascade_dr_terms, evaluate_slates

__all__ = [
    "ESTIMATORS",
    "SLATE_ESTIMATORS",
    "Estimator",
    "OffPolicyEstimate",
    "Overlap",
    "PolicyEvaluation",
    "RewardConfig",
    "RewardEstimates",
    "SlateLog",
    "Terms",
    "cascade_dr_terms",
    "cross_fit_rewards",
    "evaluate_policy",
    "evaluate_slates",
    "logged_policy",
    "measure_overlap",
    "popular_policy",
    "read_policy",
    "rewards_from_table",
    "softmax_policy",
    "uniform_policy",
]
