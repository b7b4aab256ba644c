import math

import pytest
import torch

from persona.objectives.score_gap import hinge_loss, logistic_loss, moderated_gap
from persona.profiles.laplace import predictive_probability

GAP = torch.tensor([-3.0, 0.0, 0.5, 2.0, 80.0])


def test_logistic_loss_is_minus_log_sigmoid() -> None:
    expected = [math.log1p(math.exp(-x)) for x in GAP.tolist()]
    assert logistic_loss(GAP).tolist() == pytest.approx(expected, rel=1e-6)


def test_logistic_loss_stays_finite_for_a_hopeless_pair() -> None:
    assert float(logistic_loss(torch.tensor(-1e4))) == pytest.approx(1e4)


def test_hinge_loss_is_zero_from_the_margin_on() -> None:
    assert hinge_loss(GAP).tolist() == [4.0, 1.0, 0.5, 0.0, 0.0]
    assert hinge_loss(GAP, margin=3.0).tolist() == [6.0, 3.0, 2.5, 1.0, 0.0]


def test_moderated_gap_is_the_logit_of_the_predictive_probability() -> None:
    mean, variance = torch.tensor([-2.0, 0.0, 1.5]), torch.tensor([0.0, 3.0, 8.0 / math.pi])
    gap = moderated_gap(mean, variance)
    torch.testing.assert_close(torch.sigmoid(gap), predictive_probability(mean, variance))
    assert float(gap[2]) == pytest.approx(1.5 / math.sqrt(2.0))
