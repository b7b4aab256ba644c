import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.artefacts import MANIFEST, TENSORS, read_artefact, write_artefact
from recsys.errors import ArtefactError, OrdinalError, RecsysError, ShapeError
from recsys.features import FeatureTable
from recsys.index import ExactIndex
from recsys.models.gnolr import Gnolr
from recsys.models.known import Known, count_levels, mixed_item_counts
from recsys.models.towers import towers_like
from recsys.types import Histories, Ints
from tests.helpers.slow_gnolr import draw_histories, draw_model, draw_table, history_of, slow_logits

ITEMS, USERS = 40, 6
NAMES = np.array([3, -1, 29, 0, 4, 11])
FORMS: list[tuple[str, tuple[int, ...]]] = [
    ("gnolr", (0, 1, 2)),
    ("gnolr", (0, 1, 1)),
    ("gnolr", (0,)),
    ("v0", (0, 1, 2)),
    ("v0", (0, 1, 1)),
    ("nolr", (0, 1, 2)),
]


@pytest.fixture
def histories() -> Histories:
    return draw_histories(USERS, ITEMS, 3, 0)


def every_item(rows: int = USERS, items: int = ITEMS) -> Ints:
    return np.tile(np.arange(items), (rows, 1))


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize(("structure", "parents"), FORMS)
def test_logits_equal_those_written_out_with_loops(
    structure: str, parents: tuple[int, ...], hidden: int
) -> None:
    model, histories = (
        draw_model(parents, structure, hidden=hidden),
        draw_histories(4, ITEMS, len(parents), 1),
    )
    found = model.logits(histories, every_item(4), users=NAMES[:4]).numpy()
    users = model.known.user_features.take(NAMES[:4])
    for row in range(4):
        for item in range(row, ITEMS, 5):
            alone = users.take(np.array([row]))
            expected = slow_logits(model, history_of(histories, row), item, alone)
            np.testing.assert_allclose(found[row, item], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("structure", "parents"), FORMS)
def test_one_index_ranks_by_every_level_as_brute_force_does(
    structure: str, parents: tuple[int, ...], exact: bool
) -> None:
    model, histories = draw_model(parents, structure), draw_histories(USERS, ITEMS, len(parents), 2)
    if exact:
        model.index = ExactIndex(model.item_blocks.flatten(1))
    logits = model.logits(histories, every_item(), users=NAMES).numpy()
    for level in range(1, len(parents) + 1):
        found = model.search(histories, 10, level=level, users=NAMES)
        unseen = np.where(histories.toarray() > 0, -np.inf, logits[:, :, level - 1])
        best = np.sort(unseen, axis=1)[:, ::-1][:, :10]
        np.testing.assert_allclose(np.take_along_axis(unseen, found.items, 1), best, rtol=1e-4, atol=1e-5)
        # The scores are those very logits.
        np.testing.assert_allclose(found.scores, best, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("structure", "parents"), FORMS)
def test_queries_times_items_are_logits_above_their_threshold(
    structure: str, parents: tuple[int, ...]
) -> None:
    model = draw_model(parents, structure, hidden=4)
    nobody = csr_array((USERS, ITEMS), dtype=np.float32)
    for level in range(1, len(parents) + 1):
        queries = model.queries(nobody, level, users=NAMES)
        found = queries @ model.item_blocks.flatten(1).T - model.calibration.thresholds[level - 1]
        expected = model.logits(nobody, every_item(), users=NAMES)[:, :, level - 1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_probabilities_are_the_sigmoids_of_logits_below_their_parents(histories: Histories) -> None:
    for seed in range(3):
        for parents in ((0, 1, 2), (0, 1, 1)):
            model = draw_model(parents, seed=seed)
            found = model.probabilities(histories, every_item(), users=NAMES)
            logits = model.logits(histories, every_item(), users=NAMES)
            assert found.shape == (USERS, ITEMS, 3)
            np.testing.assert_array_equal(found, logits.sigmoid().numpy())
            assert all(
                (logits[..., place] < logits[..., parent - 1]).all()
                for place, parent in enumerate(parents)
                if parent
            )


def test_search_aims_at_the_models_own_level_and_can_repeat_seen_items(histories: Histories) -> None:
    model = draw_model()
    assert np.array_equal(model.search(histories, 5).items, model.search(histories, 5, level=2).items)
    assert not np.array_equal(model.search(histories, 5).items, model.search(histories, 5, level=1).items)
    seen = model.search(histories, ITEMS, exclude_seen=False)
    assert (np.sort(seen.items, axis=1) == np.arange(ITEMS)).all()
    few = model.search(histories, 5, allowed=np.arange(ITEMS) < 2, exclude_seen=False)
    assert (few.items[:, 2:] == -1).all() and np.isneginf(few.scores[:, 2:]).all()


def test_an_item_in_the_history_does_not_see_itself(histories: Histories) -> None:
    model = draw_model()
    items = np.array([int(histories[[row]].indices[0]) if row < USERS - 1 else 0 for row in range(USERS)])
    reduced = histories.toarray()
    reduced[np.arange(USERS), items] = 0
    without = model.logits(csr_array(reduced), items)
    torch.testing.assert_close(model.logits(histories, items), without, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.logits(histories, items[:, None])[:, 0], without, rtol=1e-4, atol=1e-5)


def test_pairs_are_named_by_row_and_item_in_any_order(histories: Histories) -> None:
    model, rng = draw_model(), np.random.default_rng(0)
    rows, items = rng.integers(0, USERS, 50), rng.integers(0, ITEMS, 50)
    whole = model.logits(histories, every_item(), users=NAMES)
    found = model.pair_logits(histories, rows, items, users=NAMES)
    torch.testing.assert_close(found, whole[rows, items])


def test_long_requests_are_answered_in_parts(histories: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    model = draw_model()
    whole = model.logits(histories, every_item())
    monkeypatch.setattr("recsys.models.gnolr.PAIRS_AT_ONCE", 100)
    torch.testing.assert_close(model.logits(histories, every_item()), whole)
    nothing = np.empty((USERS, 0), dtype=np.int64)
    assert model.logits(histories, nothing).shape == (USERS, 0, 3)


def test_no_users_are_answered_with_no_rows(histories: Histories) -> None:
    model, nobody = draw_model(), csr_array((0, ITEMS), dtype=np.float32)
    assert model.logits(nobody, np.empty((0, 3), dtype=np.int64)).shape == (0, 3, 3)
    assert model.search(nobody, 5).items.shape == (0, 5)


def test_users_are_looked_up_by_id_or_described(histories: Histories) -> None:
    model = draw_model()
    table = model.known.user_features.take(NAMES)
    named, described = (
        model.search(histories, 5, users=NAMES),
        model.search(histories, 5, user_features=table),
    )
    assert np.array_equal(named.items, described.items) and np.array_equal(named.scores, described.scores)
    strangers = model.search(histories, 5)
    assert np.array_equal(strangers.items[1], named.items[1])  # -1 is a stranger too
    assert not np.array_equal(strangers.scores, named.scores)


def test_a_new_user_with_features_and_no_history_has_a_list_of_the_own() -> None:
    model = draw_model()
    nobody = csr_array((3, ITEMS), dtype=np.float32)
    new = draw_table(3, 5, 1, seed=9)
    found = model.search(nobody, 10, user_features=new)
    assert np.isfinite(found.scores).all()
    assert len({tuple(row) for row in found.items.tolist()}) == 3


def test_a_few_rows_fold_a_new_user_in_without_training() -> None:
    model = draw_model()
    first = csr_array(np.eye(1, ITEMS, 7, dtype=np.float32) * 4)
    nobody = csr_array((1, ITEMS), dtype=np.float32)
    found = model.logits(first, np.array([3])).numpy()[0]
    expected = slow_logits(model, {7: 3}, 3, model.known.user_features.blank(1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, model.logits(nobody, np.array([3])).numpy()[0])


def test_user_features_that_do_not_fit_are_refused(histories: Histories) -> None:
    model = draw_model()
    with pytest.raises(
        ShapeError, match=r"6 rows of \(5, 1\) sparse and dense columns; got 6 rows of \(4, 1\)"
    ):
        model.search(histories, 5, user_features=draw_table(6, 4, 1, 0))
    with pytest.raises(ShapeError, match=r"must hold 6 rows .* got 2 rows of \(5, 1\)"):
        model.search(histories, 5, user_features=draw_table(2, 5, 1, 0))
    with pytest.raises(ShapeError, match=r"shape \(6,\) with ids below 30, .* ids in 0\.\.30\."):
        model.search(histories, 5, users=np.array([0, 1, 2, 3, 4, 30]))
    with pytest.raises(ShapeError, match=r"or -1 for a stranger; .* ids in -2\.\.4\."):
        model.search(histories, 5, users=np.array([0, 1, 2, 3, 4, -2]))
    with pytest.raises(ShapeError, match=r"got shape \(2,\) with ids in 0\.\.1"):
        model.search(histories, 5, users=np.arange(2))


def test_requests_that_do_not_fit_are_refused(histories: Histories) -> None:
    model = draw_model()
    for level in (0, 4):
        with pytest.raises(OrdinalError, match=rf"`level` must lie in 1\.\.3; got {level}"):
            model.search(histories, 5, level=level)
        with pytest.raises(OrdinalError, match=rf"`level` must lie in 1\.\.3; got {level}"):
            Gnolr(model.towers, model.calibration, model.known, retrieve_level=level)
    with pytest.raises(ShapeError, match=r"\(6,\) or \(6, N\), one row a history; got \(3,\)"):
        model.logits(histories, np.arange(3))
    with pytest.raises(ShapeError, match=r"`items` must lie in 0\.\.39; got -1\.\.4"):
        model.logits(histories, np.arange(-1, 5))
    with pytest.raises(ShapeError, match="each of the model's 40 items; got 5 columns"):
        model.search(histories[:, :5], 3)
    with pytest.raises(ShapeError, match="`k` must be at least 1; got 0"):
        model.search(histories, 0)


def test_histories_deeper_than_the_model_are_refused(histories: Histories) -> None:
    deeper = csr_array(histories.toarray() * 2)
    with pytest.raises(RecsysError):
        draw_model().search(deeper, 5)


def test_refreshed_statistics_change_biases_and_nothing_else(histories: Histories) -> None:
    model = draw_model()
    new = model.refreshed(histories)
    assert torch.equal(new.known.item_counts, count_levels(histories, 3))
    assert torch.equal(new.item_blocks[:, :, :-2], model.item_blocks[:, :, :-2])
    assert not torch.equal(new.item_blocks[:, :, -2], model.item_blocks[:, :, -2])
    weights = model.towers.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in new.towers.state_dict().items())
    parts, old = (
        found.pair_parts(histories, np.arange(USERS), np.arange(USERS), users=NAMES) for found in (new, model)
    )
    assert torch.equal(parts[:, [0, 2]], old[:, [0, 2]])
    # The same counts are the same model.
    counts = np.array([[2, 1, 0, 1]] * ITEMS)
    log = csr_array(
        np.concatenate([np.full((int(n), ITEMS), level + 1.0) for level, n in enumerate(counts[0])])
    )
    flat = model.known._replace(item_counts=torch.from_numpy(counts).float())
    expected = Gnolr(model.towers, model.calibration, flat, retrieve_level=2)
    assert torch.equal(model.refreshed(log).item_blocks, expected.item_blocks)


def test_counts_are_rows_of_each_item_and_level(histories: Histories) -> None:
    dense = histories.toarray()
    expected = np.stack([(dense == level + 1).sum(0) for level in range(4)], axis=1)
    assert np.array_equal(count_levels(histories, 3).numpy(), expected)


def test_sampled_rows_fall_on_all_items_alike() -> None:
    blank = FeatureTable.empty(2)
    known = Known(blank, FeatureTable.empty(0), torch.tensor([[3.0, 1.0], [0.0, 2.0]]), 2.0)
    # Twelve sampled rows for the six of the log.
    assert mixed_item_counts(known).tolist() == [[9.0, 1.0], [6.0, 2.0]]
    assert known.item_counts.tolist() == [[3.0, 1.0], [0.0, 2.0]]


def test_a_grown_catalogue_knows_new_items_by_their_features(histories: Histories) -> None:
    model = draw_model(extra_ignored=0.0)
    new = draw_table(5, 6, 2, seed=7)
    grown = model.with_items(new)
    wide = csr_array((histories.data, histories.indices, histories.indptr), shape=(USERS, ITEMS + 5))
    assert grown.n_items == ITEMS + 5 and model.n_items == ITEMS
    old = model.logits(histories, every_item(), users=NAMES)
    torch.testing.assert_close(grown.logits(wide, every_item(), users=NAMES), old)
    for place in range(5):
        row = np.full(USERS, ITEMS + place)
        found = grown.logits(wide, row, users=NAMES)[0].numpy()
        expected = slow_logits(
            grown, history_of(wide, 0), ITEMS + place, model.known.user_features.take(NAMES[:1])
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (grown.search(wide, ITEMS + 5, exclude_seen=False).items >= ITEMS).sum() == 5 * USERS
    assert bool((grown.towers.item_id[ITEMS:] == 0).all())


def test_new_items_of_equal_features_are_equal_and_told_apart_by_features() -> None:
    one = draw_table(1, 6, 2, seed=7)
    grown = draw_model().with_items(one.append(one).append(draw_table(1, 6, 2, seed=8)))
    first, second, third = grown.item_blocks[ITEMS:]
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_a_grown_catalogue_leaves_old_scores_alike_where_negatives_were_sampled(histories: Histories) -> None:
    model = draw_model(extra_ignored=3.0)
    grown = model.with_items(draw_table(ITEMS, 6, 2, seed=7))
    torch.testing.assert_close(grown.item_blocks[:ITEMS], model.item_blocks)


def test_a_new_item_has_no_record_good_or_bad() -> None:
    model = draw_model(extra_ignored=16.0)
    with torch.no_grad():
        for name in ("item_sparse_bias", "item_dense_bias"):
            model.towers.get_parameter(name).zero_()
    grown = model.with_items(draw_table(1, 6, 2, seed=7))
    # Statistics of nothing are zero, so nothing is left to say.
    nothing = model.towers.statistics(torch.zeros(1, 4), 5.0)
    expected = grown.towers._bend(nothing @ grown.towers.item_statistics)
    torch.testing.assert_close(grown.item_blocks[-1:, :, -2], expected, atol=1e-4, rtol=0)


def test_new_items_with_other_columns_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"the same columns; got \(6, 2\) and \(5, 2\)"):
        draw_model().with_items(draw_table(1, 5, 2, seed=7))


@pytest.mark.parametrize(("structure", "parents"), FORMS)
def test_a_saved_model_answers_the_same_to_the_last_bit(
    structure: str, parents: tuple[int, ...], tmp_path: Path
) -> None:
    model, histories = draw_model(parents, structure), draw_histories(USERS, ITEMS, len(parents), 2)
    model.save(tmp_path)
    loaded = Gnolr.load(tmp_path)
    assert loaded.towers.sizes == model.towers.sizes and loaded.retrieve_level == model.retrieve_level
    found, expected = (one.search(histories, 7, users=NAMES) for one in (loaded, model))
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)
    logits = (one.logits(histories, every_item(), users=NAMES) for one in (loaded, model))
    assert torch.equal(*logits)
    new = draw_table(2, 6, 2, seed=3)
    assert torch.equal(loaded.with_items(new).item_blocks, model.with_items(new).item_blocks)


def test_a_model_without_any_features_is_saved_too(histories: Histories, tmp_path: Path) -> None:
    model = draw_model(features=(0, 0), user_features=(0, 0), hidden=4)
    model.save(tmp_path)
    expected = model.search(histories, 5)
    assert np.array_equal(Gnolr.load(tmp_path).search(histories, 5).scores, expected.scores)


def test_folders_that_are_cut_off_damaged_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=f"{MANIFEST} is missing"):
        Gnolr.load(tmp_path)
    draw_model().save(tmp_path)
    blob = (tmp_path / TENSORS).read_bytes()
    for damaged in (blob[:-10], blob[:-1] + bytes([blob[-1] ^ 1]), b""):
        (tmp_path / TENSORS).write_bytes(damaged)
        with pytest.raises(ArtefactError, match=f"must have the hash that {MANIFEST} names; it differs"):
            Gnolr.load(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "kind": "ease"}))
    with pytest.raises(ArtefactError, match="of kind 'gnolr'; got 'ease'"):
        Gnolr.load(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ArtefactError, match="must be valid JSON; got"):
        Gnolr.load(tmp_path)


def corrupt(folder: Path, change: dict[str, Any]) -> None:
    """Change the settings of a saved model, as someone could who also knows the tensors' hash."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"] = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    manifest["settings"] |= change
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {}}, "got: KeyError, 'parents'"),
        ({"sizes": {"items": 3, "parents": [0, 1, 2]}}, "got: RuntimeError, Error"),
        ({"sparse_features": {}}, "got: KeyError, 'item_features'"),
        ({"retrieve_level": "two"}, "got: ValueError, invalid literal"),
        ({"retrieve_level": 9}, r"must lie in 1\.\.3; got 9"),
        ({"sizes": {"items": 40, "parents": [0, 1, 2], "structure": "v9"}}, "v1, v0, nolr; got 'v9'"),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused_in_one_sentence(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    draw_model().save(tmp_path)
    corrupt(tmp_path, change)
    with pytest.raises(ArtefactError, match=message):
        Gnolr.load(tmp_path)


def test_a_calibration_of_another_number_of_levels_is_refused(tmp_path: Path) -> None:
    draw_model().save(tmp_path)
    tensors, settings = read_artefact(tmp_path, "gnolr")
    write_artefact(tmp_path, "gnolr", {**tensors, "thresholds": torch.zeros(1)}, settings)
    with pytest.raises(ArtefactError, match=r"shapes \(3,\) and \(3,\); got \(\(3,\), \(1,\)\)"):
        Gnolr.load(tmp_path)


def test_a_feature_that_points_outside_its_table_is_refused(tmp_path: Path) -> None:
    draw_model().save(tmp_path)
    tensors, settings = read_artefact(tmp_path, "gnolr")
    tensors["item_features.indices"][0] = 10**6
    write_artefact(tmp_path, "gnolr", tensors, settings)
    with pytest.raises(ArtefactError, match="sparse matrix `item_features` of shape"):
        Gnolr.load(tmp_path)


def test_copied_towers_share_no_memory() -> None:
    towers = draw_model().towers
    copy = towers_like(asdict(towers.sizes), towers.state_dict())
    with torch.no_grad():
        copy.item_id.zero_()
    assert bool((towers.item_id != 0).any())
    assert copy.item_id.requires_grad and not towers.item_id.requires_grad
