from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from recsys.features import FeatureTable
from recsys.models.gnolr import Gnolr
from recsys.models.pairs import (
    Targets,
    UserSide,
    encode_users,
    pair_parts,
    rows_of,
    user_blocks,
    with_ignored,
)
from recsys.models.towers import Items
from recsys.types import Histories, levels_in
from tests.helpers.slow_gnolr import draw_histories, draw_model, history_of, slow_parts

CPU, ITEMS = torch.device("cpu"), 40


def encode(model: Gnolr, histories: Histories, users: FeatureTable) -> tuple[UserSide, Items]:
    items = model.towers.items(None, rows_of(model.known.item_features, CPU))
    columns = histories.indices.astype(np.int64)
    return encode_users(model.towers, histories, columns, items, rows_of(users, CPU)), items


def parts_of(
    model: Gnolr, histories: Histories, users: FeatureTable, targets: Targets, kept: Tensor | None = None
) -> Tensor:
    side, items = encode(model, histories, users)
    biases = model.item_blocks[targets.item, :, -2]
    extra = model.known.extra_ignored
    return pair_parts(model.towers, side, items, biases, targets, extra_ignored=extra, kept=kept)


def every_pair(histories: Histories) -> Targets:
    rows, items = np.divmod(np.arange(histories.shape[0] * ITEMS), ITEMS)
    own = levels_in(histories, rows, items)
    return Targets(*map(torch.from_numpy, (rows, items, own)))


def without(histories: Histories, row: int, item: int) -> Histories:
    dense: NDArray[np.float32] = histories.toarray()[[row]]
    dense[0, item] = 0
    return csr_array(dense)


def test_the_user_side_is_sums_by_level_over_roots() -> None:
    model, histories = draw_model(hidden=4), draw_histories(6, ITEMS, 3, 0)
    users = model.known.user_features.take(np.arange(6))
    side, items = encode(model, histories, users)
    for level in range(4):
        member = torch.from_numpy((histories.toarray() == level + 1).astype(np.float32))
        projected = member @ items.embedded @ model.towers.user_history[level]
        torch.testing.assert_close(side.projected[:, level], projected, rtol=1e-4, atol=1e-5)
        assert torch.equal(side.counts[:, level], member.sum(1))
    whole = sum(side.projected[:, level] / (side.counts[:, level, None] + 1).sqrt() for level in range(4))
    torch.testing.assert_close(side.history, whole)


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("structure", ["gnolr", "v0", "nolr"])
def test_a_target_inside_its_history_is_left_out_exactly(structure: str, hidden: int) -> None:
    model, histories = draw_model(structure=structure, hidden=hidden), draw_histories(4, ITEMS, 3, 1)
    users = model.known.user_features.take(np.arange(4))
    targets = every_pair(histories)
    found = parts_of(model, histories, users, targets)
    for row, item in zip(*histories.nonzero(), strict=True):
        reduced, mine = without(histories, int(row), int(item)), users.take(np.array([row]))
        alone = Targets(torch.tensor([0]), torch.tensor([int(item)]), torch.tensor([-1]))
        expected = parts_of(model, reduced, mine, alone)[0]
        torch.testing.assert_close(found[int(row) * ITEMS + int(item)], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize(
    ("structure", "parents"),
    [("gnolr", (0, 1, 2)), ("gnolr", (0, 1, 1)), ("v0", (0, 1, 2)), ("nolr", (0, 1, 1)), ("gnolr", (0,))],
)
def test_parts_equal_those_written_out_with_loops(
    structure: str, parents: tuple[int, ...], history: bool, hidden: int
) -> None:
    model = draw_model(parents, structure, history=history, hidden=hidden)
    histories = draw_histories(4, ITEMS, len(parents), 2)
    users = model.known.user_features.take(np.array([3, -1, 8, 0]))
    found = parts_of(model, histories, users, every_pair(histories))
    for row in range(4):
        for item in range(row, ITEMS, 4):
            alone = users.take(np.array([row]))
            expected = slow_parts(model, history_of(histories, row), item, alone)
            np.testing.assert_allclose(found[row * ITEMS + item].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_dropped_history_makes_the_user_a_stranger() -> None:
    model, histories = draw_model(), draw_histories(5, ITEMS, 3, 3)
    users, targets = model.known.user_features.take(np.arange(5)), every_pair(draw_histories(5, ITEMS, 3, 3))
    kept = torch.arange(len(targets.user)) % 2 == 0
    found = parts_of(model, histories, users, targets, kept)
    whole = parts_of(model, histories, users, targets)
    nobody = csr_array(histories.shape, dtype=np.float32)
    strangers = parts_of(model, nobody, users, targets._replace(own=torch.full_like(targets.own, -1)))
    torch.testing.assert_close(found[kept], whole[kept])
    torch.testing.assert_close(found[~kept], strangers[~kept])
    assert not torch.allclose(whole[~kept], strangers[~kept])


@pytest.mark.parametrize("structure", ["gnolr", "v0", "nolr"])
def test_blocks_multiply_to_the_sum_of_parts(structure: str) -> None:
    model, histories = draw_model(structure=structure, hidden=4), draw_histories(5, ITEMS, 3, 4)
    users = model.known.user_features.take(np.arange(5))
    side, _ = encode(model, histories, users)
    targets = every_pair(histories)._replace(own=torch.full((5 * ITEMS,), -1))
    parts = parts_of(model, histories, users, targets).view(5, ITEMS, 3, -1)
    for scales in (None, torch.tensor([0.5, 0.2, 2.0])):
        blocks = user_blocks(model.towers, side, extra_ignored=model.known.extra_ignored, scales=scales)
        found = torch.einsum("bkd,ikd->bik", blocks, model.item_blocks)
        trust = torch.ones(3) if scales is None else scales
        torch.testing.assert_close(found, (parts * trust[:, None]).sum(2), rtol=1e-4, atol=1e-5)


def test_users_by_features_alone_do_not_look_at_histories() -> None:
    model, histories = draw_model(history=False), draw_histories(5, ITEMS, 3, 5)
    users = model.known.user_features.take(np.arange(5))
    found = parts_of(model, histories, users, every_pair(histories))
    nobody = csr_array(histories.shape, dtype=np.float32)
    assert torch.equal(found, parts_of(model, nobody, users, every_pair(nobody)))


def test_the_order_of_a_history_does_not_matter() -> None:
    model, histories = draw_model(), draw_histories(3, ITEMS, 3, 6)
    users = model.known.user_features.take(np.arange(3))
    turned = csr_array(
        (
            np.concatenate([part[::-1] for part in np.split(histories.data, histories.indptr[1:-1])]),
            np.concatenate([part[::-1] for part in np.split(histories.indices, histories.indptr[1:-1])]),
            histories.indptr,
        ),
        shape=histories.shape,
    )
    targets = every_pair(histories)
    found = parts_of(model, turned, users, targets)
    torch.testing.assert_close(found, parts_of(model, histories, users, targets), rtol=1e-4, atol=1e-5)


def test_sampled_rows_join_level_zero_alone() -> None:
    counts = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    assert with_ignored(counts, 2.0).tolist() == [[13.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
    assert with_ignored(counts, 0.0) is counts


def test_features_keep_their_rows() -> None:
    table = FeatureTable(
        csr_array(np.array([[0, 2.0, 0], [0, 0, 0], [1.0, 0, 3.0]])), np.zeros((3, 1), np.float32)
    )
    rows = rows_of(table, CPU)
    assert rows.indices.tolist() == [1, 0, 2] and rows.owners.tolist() == [0, 2, 2]
    assert rows.values.tolist() == [2.0, 1.0, 3.0] and rows.dense.shape == (3, 1)


def test_biases_turned_off_are_zero() -> None:
    model = draw_model()
    model.towers.sizes = replace(model.towers.sizes, biases=False)
    histories = draw_histories(3, ITEMS, 3, 7)
    users = model.known.user_features.take(np.arange(3))
    found = parts_of(model, histories, users, every_pair(histories))
    assert bool((found[:, 2] == 0).all()) and bool((found[:, 0] != 0).any())
