"""How sure a mean over users is, and which of several models may be called better; users are the unit drawn."""

from recsys.significance.bootstrap import Interval, bootstrap_interval, combine_seeds, paired_difference
from recsys.significance.comparing import Comparison, compare_models, definition_of_better
from recsys.significance.paired import holm, permutation_test, wilcoxon_test

__all__ = [
    "Comparison",
    "Interval",
    "bootstrap_interval",
    "combine_seeds",
    "compare_models",
    "definition_of_better",
    "holm",
    "paired_difference",
    "permutation_test",
    "wilcoxon_test",
]
