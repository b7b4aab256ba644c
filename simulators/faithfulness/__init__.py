"""How far a simulator can be believed, and for what: measures of choices, behaviour and words, and verdicts.

The measures take plain arrays and tables, so that any simulator's output can be judged, whoever made it.
"""

from simulators.faithfulness.acceptance import AcceptanceFit, acceptance_auc
from simulators.faithfulness.audit import Evidence, audit_simulator
from simulators.faithfulness.behaviour import INTERACTION_COLUMNS, behaviour_features, checked_interactions
from simulators.faithfulness.choices import (
    Scenes,
    expected_accuracy_by_scene,
    nll_by_scene,
    reliability,
    scenes_from_frame,
    slot_accuracy,
    top1_by_scene,
)
from simulators.faithfulness.distributions import (
    DistributionGap,
    compare_distributions,
    compare_mixes,
    jensen_shannon,
    ks_distance,
    wasserstein_distance,
)
from simulators.faithfulness.diversity import distinct_n, self_bleu
from simulators.faithfulness.limits import Limits
from simulators.faithfulness.position import compare_position_bias
from simulators.faithfulness.ranking import (
    PolicyTerms,
    RankingAgreement,
    kendall_tau_b,
    ranking_agreement,
    terms_from_rows,
)
from simulators.faithfulness.rates import RateGap, compare_rates
from simulators.faithfulness.speech import SpokenDialogue, read_dialogue
from simulators.faithfulness.stated import Vocabulary, contradictions, disclosures, statements
from simulators.faithfulness.survival import Sessions, compare_survival
from simulators.faithfulness.two_sample import TwoSample, two_sample_auc
from simulators.faithfulness.user_errors import Severity, Tag, UserError, find_user_errors
from simulators.faithfulness.verdicts import USES, Answer, Verdict, verdicts

__all__ = [
    "INTERACTION_COLUMNS",
    "USES",
    "AcceptanceFit",
    "Answer",
    "DistributionGap",
    "Evidence",
    "Limits",
    "PolicyTerms",
    "RankingAgreement",
    "RateGap",
    "Scenes",
    "Sessions",
    "Severity",
    "SpokenDialogue",
    "Tag",
    "TwoSample",
    "UserError",
    "Verdict",
    "Vocabulary",
    "acceptance_auc",
    "audit_simulator",
    "behaviour_features",
    "checked_interactions",
    "compare_distributions",
    "compare_mixes",
    "compare_position_bias",
    "compare_rates",
    "compare_survival",
    "contradictions",
    "disclosures",
    "distinct_n",
    "expected_accuracy_by_scene",
    "find_user_errors",
    "jensen_shannon",
    "kendall_tau_b",
    "ks_distance",
    "nll_by_scene",
    "ranking_agreement",
    "read_dialogue",
    "reliability",
    "scenes_from_frame",
    "self_bleu",
    "slot_accuracy",
    "statements",
    "terms_from_rows",
    "top1_by_scene",
    "two_sample_auc",
    "verdicts",
    "wasserstein_distance",
]
