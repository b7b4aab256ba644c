"""GNOLR beside its plain loop: large catalogues, half precision, several processes.

Run as a module, this file is one of the processes that its own tests start.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from recsys.features import FeatureTable
from recsys.models.gnolr import Gnolr
from recsys.models.towers import Towers
from recsys.recipes.gnolr import GnolrConfig, train
from recsys.recipes.gnolr_training import Training
from recsys.types import Histories, Ints, histories_from_log
from tests.helpers.ordinal_log import make_ordinal_world
from tests.helpers.slow_gnolr import draw_table

ITEMS, USERS, EPOCHS = 60, 80, 3
LIMITS = ("recsys.recipes.gnolr_steps.LARGE_CATALOGUE",)
WORLD = make_ordinal_world(USERS, ITEMS, 30, seed=0)
CONFIG = GnolrConfig(
    embedding=8, width=8, epochs=EPOCHS, patience=EPOCHS, batch_rows=256, negatives=4.0, negative_items=20,
    learning_rate=0.01, history_dropout=0.2,
)  # fmt: skip
Rows = list[dict[str, float]]


def quick(**changes: object) -> GnolrConfig:
    return GnolrConfig.model_validate({**CONFIG.model_dump(), **changes})


def shrink_limit(patch: pytest.MonkeyPatch) -> None:
    for name in LIMITS:
        patch.setattr(name, 10)


def fit(config: GnolrConfig = CONFIG, **more: Any) -> tuple[Gnolr, Rows]:
    rows: Rows = []
    return train(WORLD.log, n_items=ITEMS, seed=0, config=config, report=rows.append, **more), rows


def histories() -> Histories:
    return histories_from_log(WORLD.log, np.arange(USERS), ITEMS)


@pytest.mark.integration
@pytest.mark.parametrize("negatives", [0.0, 4.0])
def test_a_large_catalogue_trains_about_as_well(negatives: float, monkeypatch: pytest.MonkeyPatch) -> None:
    table, config = FeatureTable.of_dense(WORLD.features), quick(negatives=negatives)
    _, dense = fit(config, item_features=table)
    shrink_limit(monkeypatch)
    model, few = fit(config, item_features=table)
    assert few[-1]["train_loss"] < few[0]["train_loss"]
    assert few[-1]["validation_loss"] == pytest.approx(dense[-1]["validation_loss"], rel=0.03)
    assert (model.search(histories(), 5).items >= 0).all()


def test_the_first_loss_of_a_large_catalogue_is_that_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # One step, before any weight has moved.
    config, table = quick(epochs=1, batch_rows=10**6), draw_table(ITEMS, 4, 2, 0)
    _, dense = fit(config, item_features=table)
    shrink_limit(monkeypatch)
    _, few = fit(config, item_features=table)
    assert few[0]["train_loss"] == pytest.approx(dense[0]["train_loss"], rel=1e-5)


def untouched_rows(learning_rate: float) -> tuple[Gnolr, Ints]:
    """A model that keeps the rows of items that its log never shows, and these items."""
    config = quick(negatives=0.0, learning_rate=learning_rate, validation_users=0.0, weight_decay=2.0)
    shown = WORLD.log[WORLD.log["item_id"] % 3 > 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.recipes.gnolr._forget_unseen_items", lambda *_: None)
        return train(shown, n_items=ITEMS, seed=0, config=config), np.arange(0, ITEMS, 3)


@pytest.mark.parametrize("is_large", [True, False])
def test_only_touched_rows_of_a_large_catalogue_change(
    is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_large:
        shrink_limit(monkeypatch)
    (trained, untouched), (start, _) = untouched_rows(0.01), untouched_rows(1e-12)
    same = (trained.towers.item_id == start.towers.item_id).all(1).numpy()
    assert same[untouched].all() == is_large
    touched = np.setdiff1d(np.arange(ITEMS), untouched)
    assert not same[touched].any()
    assert not bool((trained.towers.item_bias[touched] == 0).all(1).any())


def test_rows_of_a_large_catalogue_decay_where_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_limit(monkeypatch)
    lengths = [
        float(fit(quick(weight_decay=decay))[0].towers.item_id.norm(dim=1).mean()) for decay in (0.0, 20.0)
    ]
    assert lengths[1] < 0.8 * lengths[0]


def half_precision() -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, mixed_precision="bf16")


def test_half_precision_trains_without_nan() -> None:
    model, rows = fit(accelerator=half_precision())
    assert np.isfinite([list(row.values()) for row in rows]).all()
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(weight.dtype == torch.float32 for weight in model.towers.parameters())
    _, single = fit()
    assert rows[-1]["validation_loss"] == pytest.approx(single[-1]["validation_loss"], rel=0.02)
    assert np.isfinite(model.search(histories(), 5).scores).all()


def test_half_precision_is_really_half(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    deepen = Towers._deepen

    def spy(towers: Towers, flat: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        seen.append((flat @ flat.new_zeros(flat.shape[1], 1)).dtype)
        return deepen(towers, flat, out)

    monkeypatch.setattr(Towers, "_deepen", spy)
    fit(quick(epochs=1), accelerator=half_precision())
    assert torch.bfloat16 in seen


@pytest.mark.parametrize("side", ["item_features", "user_features"])
def test_half_precision_trains_with_sparse_features(side: str) -> None:
    table = draw_table(ITEMS if side == "item_features" else USERS, 4, 2, 0)
    _, rows = fit(quick(epochs=1), accelerator=half_precision(), **{side: table})
    assert np.isfinite(rows[0]["train_loss"])


def work(folder: Path, rank: int, processes: int, *, is_large: bool) -> None:
    """One of the processes: train, and write down what it saw and where it ended."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes
    )
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == processes
    batches: list[list[list[int]]] = []
    share = Training._my_share

    def spy(training: Training, whole: list[Ints]) -> list[Ints]:
        mine = share(training, whole)
        batches.append([users.tolist() for users in mine])
        return mine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_my_share", spy)
        if is_large:
            shrink_limit(patch)
        model, rows = fit(accelerator=accelerator)
    weights = {name: tensor.tolist() for name, tensor in model.towers.state_dict().items()}
    found = {
        "rows": rows,
        "weights": weights,
        "batches": batches,
        "scales": model.calibration.scales.tolist(),
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def run_processes(folder: Path, count: int, *, is_large: bool = False) -> list[dict[str, Any]]:
    """What each of `count` processes wrote; all are ended after a minute, one that waits for a lost one too."""
    root = Path(__file__).parents[2]
    running = []
    for rank in range(count):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        settings = {name: str(value) for name, value in names.items()}
        settings |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        arguments = [str(folder), str(rank), str(count), str(int(is_large))]
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.recsys.test_gnolr_processes", *arguments],
                cwd=root,
                env=os.environ | settings,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for process in running:
            _, complaint = process.communicate(timeout=60)
            assert process.returncode == 0, complaint[-2000:]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two processes that trained one model together."""
    return run_processes(tmp_path_factory.mktemp("two"), 2)


@pytest.mark.integration
def test_two_processes_end_with_the_same_weights_and_a_lower_loss(two: list[dict[str, Any]]) -> None:
    first, second = two
    assert first["weights"] == second["weights"] and first["scales"] == second["scales"]
    for found in two:
        losses = [row["validation_loss"] for row in found["rows"]]
        assert len(losses) == EPOCHS and min(losses[1:]) < losses[0]
    assert [row["validation_loss"] for row in first["rows"]] == [
        row["validation_loss"] for row in second["rows"]
    ]
    _, alone = fit()
    assert first["rows"][-1]["validation_loss"] == pytest.approx(alone[-1]["validation_loss"], rel=0.1)


@pytest.mark.integration
def test_two_processes_take_as_many_steps_as_each_other(two: list[dict[str, Any]]) -> None:
    first, second = (found["batches"] for found in two)
    assert [len(epoch) for epoch in first] == [len(epoch) for epoch in second]
    assert all(len(epoch) > 0 for epoch in first)


@pytest.mark.integration
def test_two_processes_never_take_the_same_user_in_one_epoch(two: list[dict[str, Any]]) -> None:
    for first, second in zip(*(found["batches"] for found in two), strict=True):
        mine, theirs = ({user for users in batches for user in users} for batches in (first, second))
        assert not mine & theirs


@pytest.mark.integration
def test_two_processes_train_a_large_catalogue(tmp_path: Path) -> None:
    first, second = run_processes(tmp_path, 2, is_large=True)
    assert first["weights"] == second["weights"]


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), is_large=sys.argv[4] == "1")
