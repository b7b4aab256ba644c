import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.models.gnolr import sum_steps
from recsys.models.towers import ORDER_MARGIN, Bags, Towers, TowerSizes, leave_out
from recsys.types import Histories, levels_in


def draw_towers(
    *, items: int = 30, levels: int = 3, features: int = 4, dense: int = 2, seed: int = 0
) -> Towers:
    rng = torch.Generator().manual_seed(seed)
    sizes = TowerSizes(items, levels, 5, 6, features, dense)
    return Towers(sizes, torch.randn(items, features, generator=rng), rng)


def without(histories: Histories, row: int, item: int) -> Histories:
    dense = histories.toarray()[[row]]
    dense[0, item] = 0
    return csr_array(dense)


def test_bags_are_sums_by_level(small_histories: Histories) -> None:
    towers = draw_towers()
    embedded = towers.item_embeddings()
    found = towers.bags(small_histories, embedded)
    for level in range(4):
        member = torch.from_numpy((small_histories.toarray() == level + 1).astype(np.float32))
        torch.testing.assert_close(found.sums[:, level], member @ embedded)
        torch.testing.assert_close(found.counts[:, level], member.sum(1))


def test_a_target_inside_its_history_is_left_out_exactly(small_histories: Histories) -> None:
    towers = draw_towers()
    embedded = towers.item_embeddings()
    rows, items = np.divmod(np.arange(6 * 30), 30)
    levels = levels_in(small_histories, rows, items)
    found = leave_out(
        towers.bags(small_histories, embedded),
        torch.from_numpy(rows),
        torch.from_numpy(levels),
        embedded[items],
    )
    for n, (row, item) in enumerate(zip(rows.tolist(), items.tolist(), strict=True)):
        alone = towers.bags(without(small_histories, row, item), embedded)
        torch.testing.assert_close(found.sums[n], alone.sums[0], rtol=1e-5, atol=1e-6)
        assert torch.equal(found.counts[n], alone.counts[0])


def test_no_step_reaches_the_gap_whatever_the_weights() -> None:
    gaps = torch.tensor([0.02, 1.7])
    for seed in range(5):
        towers = draw_towers(seed=seed)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in towers.parameters():
                weight.copy_(50 * torch.randn(weight.shape, generator=rng))
        towers.limit_steps(gaps)
        bags = Bags(100 * torch.randn(40, 4, 5, generator=rng), 100 * torch.rand(40, 4, generator=rng))
        users = towers.user_blocks(bags, 100 * torch.randn(40, 2, generator=rng))
        steps = torch.einsum("ucd,icd->uic", users, towers.item_blocks())[:, :, 1:]
        assert bool((steps < (1 - ORDER_MARGIN / 2) * gaps).all())


def test_a_user_without_history_has_a_vector() -> None:
    towers = draw_towers()
    towers.limit_steps(torch.tensor([1.0, 1.0]))
    bags = towers.bags(csr_array((1, 30), dtype=np.float32), towers.item_embeddings())
    unit = towers.user_blocks(bags, torch.zeros(1, 2))[0, :, :-2]
    torch.testing.assert_close(unit.norm(dim=1), towers.step_parts()[:, 0])


def test_item_biases_start_at_the_items_own_rates() -> None:
    towers = draw_towers()
    towers.limit_steps(torch.tensor([2.0, 2.0]))
    wanted = 0.1 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    towers.start_item_biases(wanted)
    users = torch.zeros(30, 3, 8)
    users[:, :, -2] = 1.0  # a user with cosine and user bias zero
    torch.testing.assert_close(sum_steps(users, towers.item_blocks()), wanted, rtol=1e-4, atol=1e-5)


def test_every_weight_gets_a_gradient(small_histories: Histories) -> None:
    towers = draw_towers()
    towers.limit_steps(torch.tensor([1.0, 1.0]))
    bags = towers.bags(small_histories, towers.item_embeddings())
    users = towers.user_blocks(bags, torch.ones(6, 2))
    (users[:, None] * towers.item_blocks()[None]).sum((2, 3)).square().sum().backward()
    for name, weight in towers.named_parameters():
        assert weight.grad is not None and bool((weight.grad != 0).any()), name


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_generator_draws_the_same_weights(seed: int) -> None:
    first, second = draw_towers(seed=seed).state_dict(), draw_towers(seed=seed).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
