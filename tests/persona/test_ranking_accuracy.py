import numpy as np
import pytest
import torch

from persona.errors import DataError, ShapeError
from persona.objectives import dpo_loss
from persona.ranking_accuracy import PairLogProbs, idealised_ranking, ranking_loss_threshold, ranking_report


def test_report_by_hand() -> None:
    # Gaps of the policy: 1, -1, 2, 0; of the reference: 2, 1, -1, -1.
    log_probs = PairLogProbs(
        [-1.0, -3.0, -1.0, -2.0], [-2.0, -2.0, -3.0, -2.0], [-1.0, -1.0, -3.0, -3.0], [-3.0, -2.0, -2.0, -2.0]
    )
    report = ranking_report(log_probs, beta=1.0, agreement=0.9)
    assert report.ranking == (1 + 0 + 1 + 0.5) / 4
    # Implicit margins: -1, -2, 3, 1.
    assert (report.reward, report.reference) == (0.5, 0.5)
    # logit(0.9) = 2.197 makes up for every gap of -1.
    assert report.idealised == 1.0
    assert tuple(report.flips) == (0.25, 0.25, 0.25, 0.25)


def test_loss_threshold_tells_the_ranking_exactly() -> None:
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(rng.normal(size=500) * 3) for _ in range(4)]
    beta = 0.3
    loss = dpo_loss(parts[0], parts[1], parts[2], parts[3], beta).numpy()
    threshold = ranking_loss_threshold((parts[2] - parts[3]).numpy(), beta=beta)
    np.testing.assert_array_equal(loss < threshold, (parts[0] > parts[1]).numpy())


def test_idealised_policy_is_the_optimum_of_dpo() -> None:
    # Minimising a (-log s(z)) + (1 - a)(-log s(-z)) over z = beta (gap - reference) gives z = logit(a).
    reference, beta, agreement = np.array([-3.0, -3.0, 0.5]), 0.5, np.array([0.8, 0.85, 0.4])
    optimum = reference + np.log(agreement / (1 - agreement)) / beta
    np.testing.assert_array_equal(idealised_ranking(reference, beta=beta, agreement=agreement), optimum > 0)
    assert idealised_ranking([-9.0], beta=1.0, agreement=1.0).tolist() == [1.0]
    assert idealised_ranking([0.0], beta=1.0, agreement=0.5).tolist() == [0.5]


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(DataError, match=r"got 0 and 0\.9 to 0\.9"):
        idealised_ranking([1.0], beta=0, agreement=0.9)
    with pytest.raises(ShapeError, match=r"got \[\(1,\), \(2,\)"):
        ranking_report(PairLogProbs([1.0], [1.0, 2.0], [1.0], [1.0]), beta=1.0)
    with pytest.raises(DataError, match="at least one pair; got none"):
        ranking_report(PairLogProbs([], [], [], []), beta=1.0)
