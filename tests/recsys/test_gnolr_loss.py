import numpy as np
import pytest
import torch

from recsys.index import ExactIndex
from recsys.models.calibration import Calibration
from recsys.models.gnolr import Gnolr
from recsys.recipes.gnolr_config import GnolrConfig
from recsys.recipes.gnolr_rows import Examples
from recsys.recipes.gnolr_steps import Catalogue, batch_loss
from recsys.types import Histories
from tests.helpers.slow_gnolr import draw_histories, draw_model, slow_loss, slow_way

ITEMS, USERS = 40, 5
FORMS: list[tuple[str, tuple[int, ...]]] = [
    ("gnolr", (0, 1, 2)),
    ("v1", (0, 1, 2)),
    ("v0", (0, 1, 2)),
    ("nolr", (0, 1, 2)),
    ("gnolr", (0, 1, 1)),
    ("gnolr", (0, 0, 1)),
    ("v1", (0, 0, 1)),
]


def untrusted(model: Gnolr) -> Gnolr:
    """The model with the logits of training rather than calibrated ones."""
    plain = Calibration(torch.ones(3), model.towers.thresholds)
    index = ExactIndex(model.item_blocks.flatten(1))
    return Gnolr(model.towers, plain, model.known, retrieve_level=1, index=index)


def examples_of(model: Gnolr, histories: Histories) -> Examples:
    return Examples.of_histories(histories, model.known.user_features.take(np.arange(USERS)))


def drawn_loss(
    model: Gnolr, examples: Examples, config: GnolrConfig, *, counted: bool, seed: int = 0
) -> float:
    catalogue = Catalogue(model.known, torch.device("cpu"))
    rng = np.random.default_rng(seed)
    return float(batch_loss(model.towers, examples, catalogue, config, rng, counted=counted))


@pytest.mark.parametrize("drawn", [ITEMS, 7])
@pytest.mark.parametrize(("structure", "parents"), FORMS)
def test_the_loss_of_a_batch_is_that_of_its_rows_and_of_weighted_strangers_to_its_users(
    structure: str, parents: tuple[int, ...], drawn: int
) -> None:
    nested = structure == "gnolr"
    model = untrusted(draw_model(parents, "gnolr" if structure == "v1" else structure))
    histories = draw_histories(USERS, ITEMS, 3, 0)
    examples = examples_of(model, histories)
    settings = {"structure": structure, "parents": parents, "negative_items": drawn, "negatives": 3.0}
    others = {"levels": 3, "retrieve_level": 1, "biases": structure != "v0"}
    config = GnolrConfig.model_validate(settings | others)
    names = np.arange(USERS)
    rows = model.pair_logits(histories, examples.user, examples.item, users=names).tolist()
    expected = sum(
        slow_loss(z, level, parents, nested=nested)
        for z, level in zip(rows, examples.level.tolist(), strict=True)
    )
    sampled = np.random.default_rng(0).choice(ITEMS, drawn, replace=False)
    seen = histories.toarray() > 0
    for root in (level for level, parent in enumerate(parents, start=1) if parent == 0):
        aims = [aim for aim in (1, 2, 3) if nested or aim not in parents]
        readings = sum(root in slow_way(parents, aim) for aim in aims)
        scores = model.queries(histories, root, users=names) @ model.item_blocks.flatten(1).T
        reached = (scores - model.towers.thresholds[root - 1]).double().sigmoid().numpy()
        for user in range(USERS):
            unseen = [item for item in sampled.tolist() if not seen[user, item]]
            each = 3.0 * seen[user].sum() / max(len(unseen), 1)
            expected += readings * sum(each * -np.log(1 - reached[user, item]) for item in unseen)
    assert drawn_loss(model, examples, config, counted=False) == pytest.approx(expected, rel=1e-4)


def test_a_rows_own_outcome_is_left_out_of_its_items_statistics() -> None:
    histories = draw_histories(USERS, ITEMS, 3, 1)
    # Statistics of a training log hold at least the row itself.
    model = untrusted(draw_model(extra_ignored=0.0).refreshed(histories))
    examples = examples_of(model, histories)
    config = GnolrConfig(levels=3, negatives=0.0, retrieve_level=1)
    expected = 0.0
    for user, item, level in zip(examples.user, examples.item, examples.level, strict=True):
        counts = model.known.item_counts.clone()
        counts[item, level] -= 1
        known = model.known._replace(item_counts=counts)
        without = Gnolr(model.towers, model.calibration, known, retrieve_level=1, index=model.index)
        logits = without.logits(histories[[user]], np.array([item]), users=np.array([user]))[0]
        expected += slow_loss(logits.tolist(), int(level), (0, 1, 2))
    assert drawn_loss(model, examples, config, counted=True) == pytest.approx(expected, rel=1e-4)
    assert drawn_loss(model, examples, config, counted=False) != pytest.approx(expected, rel=1e-4)


def test_histories_are_dropped_in_training_alone_and_about_as_often_as_asked() -> None:
    model = untrusted(draw_model(extra_ignored=0.0))
    histories = draw_histories(USERS, ITEMS, 3, 2)
    examples = examples_of(model, histories)
    whole, dropping = (
        GnolrConfig(levels=3, negatives=0.0, retrieve_level=1, history_dropout=share)
        for share in (0.0, 0.999)
    )
    still = drawn_loss(model, examples, whole, counted=False)
    assert drawn_loss(model, examples, dropping, counted=False) == still
    model.towers.train()
    assert drawn_loss(model, examples, whole, counted=False) == pytest.approx(still, rel=1e-6)
    # Without their histories all are strangers with features.
    nobody = Histories(histories.shape, dtype=np.float32)
    logits = model.pair_logits(nobody, examples.user, examples.item, users=np.arange(USERS)).tolist()
    expected = sum(
        slow_loss(z, level, (0, 1, 2)) for z, level in zip(logits, examples.level.tolist(), strict=True)
    )
    assert drawn_loss(model, examples, dropping, counted=False) == pytest.approx(expected, rel=1e-4)
