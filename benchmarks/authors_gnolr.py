"""The authors' published GNOLR and Neural OLR, run from a checkout on the path, on the rows of a split.

Their code is used as it is: model, embedding, loss, collate function. What it lacks for three levels in the case of
Neural OLR, the loss of one embedding, is written out here as their two-level one is.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recsys.columns import ITEM, LEVEL, USER
from recsys.data.dataset import Dataset, FeatureKind
from recsys.data.splits import Split
from recsys.metrics.discrimination import auc

BATCH, EPOCHS, PATIENCE = 1024, 15, 3
EMBEDDING = 16
AGES = (18, 25, 35, 45, 50, 56)


class Run(NamedTuple):
    """Probabilities of the test rows at the best epoch, and the product of its validation AUCs."""

    probabilities: NDArray[np.floating]
    validation: float


class AuthorsGnolr:
    """Their model on our rows.

    Args:
        data: The data set.
        split: How it was cut.
    """

    def __init__(self, data: Dataset, split: Split) -> None:
        self._tables = _encode(data)
        self._train, self._validation, self._test = (
            self._rows(part) for part in (split.train, split.validation.target, split.test.target)
        )
        self._levels = data.levels
        rates = self._train[1].mean(0)
        self._odds = (rates / (1 - rates)).tolist()

    def foretell(self, name: str, rate: float, gamma: float, seed: int) -> Run:
        """Train until the product of validation AUCs has not risen for three epochs."""
        torch.manual_seed(seed)
        np.random.seed(seed)
        model = self._model(name)
        optimizer = torch.optim.Adam(model.parameters(), rate)
        best, bad = -1.0, 0
        found: NDArray[np.floating] = np.empty(0)
        for _ in range(EPOCHS):
            self._epoch(model, optimizer, name, gamma)
            judged = self._probabilities(model, self._validation[0], gamma, name)
            labels = self._validation[1].numpy() > 0
            product = float(np.prod([auc(judged[:, k], labels[:, k]) for k in range(self._levels)]))
            if product > best:
                best, bad = product, 0
                found = self._probabilities(model, self._test[0], gamma, name)
            else:
                bad += 1
            if bad >= PATIENCE:
                break
        return Run(found, best)

    def tensor_epoch(self) -> float:
        """Processor seconds of one epoch of their GNOLR over rows that already are tensors."""
        model = self._model("GNOLR")
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        began = time.process_time()
        self._epoch(model, optimizer, "GNOLR", 1.2)
        return time.process_time() - began

    def shipped_epoch(self) -> float:
        """Processor seconds of one epoch through their data set, collate function and loader, in this process."""
        from data_process.data_loader import CustomDataset, custom_collate_fn  # noqa: PLC0415
        from datasets import Dataset as Table  # noqa: PLC0415

        inputs, labels = self._train
        values = torch.cat([inputs, labels], 1).numpy()
        table = Table.from_pandas(pd.DataFrame({str(n): values[:, n] for n in range(values.shape[1])}))
        features = [{"belongs": "label", "index": inputs.shape[1] + level} for level in range(self._levels)]
        loader = torch.utils.data.DataLoader(
            CustomDataset(table, features), BATCH, shuffle=True, collate_fn=custom_collate_fn
        )
        model = self._model("GNOLR")
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        model.train()
        began = time.process_time()
        for rows, label, _ in loader:
            self._step(model, optimizer, rows, label, "GNOLR", 1.2)
        return time.process_time() - began

    def _epoch(self, model: Any, optimizer: torch.optim.Optimizer, name: str, gamma: float) -> None:
        model.train()
        for batch in torch.randperm(len(self._train[0])).split(BATCH):
            self._step(model, optimizer, self._train[0][batch], self._train[1][batch], name, gamma)

    def _step(self, model: Any, optimizer: Any, rows: Any, label: Any, name: str, gamma: float) -> None:
        from util.loss import get_loss  # noqa: PLC0415

        found = model(rows)[0]
        if name == "GNOLR":
            weights = [gamma] * self._levels
            loss = get_loss(
                loss="multi_gnolr_with_multi_feedback", true=label, pred=found, S1=weights, m=self._odds
            )
        else:
            reach = torch.sigmoid(found * gamma + torch.tensor(self._odds).log())
            ends = torch.cat([torch.ones_like(reach[:, :1]), reach, torch.zeros_like(reach[:, :1])], 1)
            classes = ends[:, :-1] - ends[:, 1:]
            loss = -classes.gather(1, label.sum(1, keepdim=True).long()).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def _probabilities(self, model: Any, rows: Any, gamma: float, name: str) -> NDArray[np.floating]:
        model.eval()
        steps = torch.cat([model(part)[0] for part in rows.split(4096)]) * gamma
        logits = steps.cumsum(1) if name == "GNOLR" else steps
        found: NDArray[np.floating] = torch.sigmoid(logits + torch.tensor(self._odds).log()).numpy()
        return found

    def _model(self, name: str) -> Any:
        from util.get_model import get_model  # noqa: PLC0415

        users, items = self._tables
        layers = (128, 64, 32) if name == "GNOLR" else (256, 128, 64)
        own, other = users.schema(0, "user"), items.schema(users.values.shape[1], "item")
        return get_model(
            "dssm",
            own,
            other,
            user_dnn_size=layers,
            item_dnn_size=layers,
            output=self._levels if name == "GNOLR" else 1,
            similarity="dot",
            dropout=[0, 0, 0],
            activation="LeakyReLU",
            use_senet="false",
            dimensions=EMBEDDING,
            l2_normalization="true",
            loss="multi_gnolr_with_multi_feedback",
            tower="base",
        )

    def _rows(self, part: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
        users, items = self._tables
        inputs = np.concatenate(
            [users.values[part[USER].to_numpy()], items.values[part[ITEM].to_numpy()]], axis=1
        )
        levels = part[LEVEL].to_numpy()[:, None] > np.arange(int(part[LEVEL].max()))
        return torch.from_numpy(inputs), torch.from_numpy(levels.astype(np.float32))


class _Table(NamedTuple):
    """One side's inputs as their code wants them: numbers of categories, lists padded with 0."""

    values: NDArray[np.float32]
    columns: list[tuple[int, int]]

    def schema(self, start: int, side: str) -> list[dict[str, Any]]:
        """Their description of the columns, given as width and number of categories."""
        found = []
        for number, (width, length) in enumerate(self.columns):
            kind = "SparseEncoder" if width == 1 else "MultiSparseEncoder"
            found.append(
                {
                    "name": f"{side}{number}",
                    "belongs": side,
                    "index": start,
                    "length": length,
                    "type": kind,
                    "size": width,
                }
            )
            start += width
        return found


def _encode(data: Dataset) -> tuple[_Table, _Table]:
    found = []
    for table in (data.users, data.items):
        columns = [(np.arange(len(table))[:, None], len(table))]
        for name, kind in table.kinds.items():
            cells = table.features[name]
            if kind == FeatureKind.MULTI_HOT:
                columns.append(_lists(cells))
            elif kind == FeatureKind.DENSE:
                columns.append((np.digitize(cells.to_numpy(), AGES)[:, None], len(AGES) + 1))
            else:
                places = pd.factorize(cells)[0]
                columns.append((places[:, None], int(places.max()) + 1))
        values = np.concatenate([column for column, _ in columns], axis=1).astype(np.float32)
        found.append(_Table(values, [(column.shape[1], length) for column, length in columns]))
    return found[0], found[1]


def _lists(cells: pd.Series) -> tuple[NDArray[np.int64], int]:
    names = {tag: n + 1 for n, tag in enumerate(sorted({tag for tags in cells for tag in tags}))}
    width = max(len(tags) for tags in cells)
    padded = [[names[tag] for tag in tags] + [0] * (width - len(tags)) for tags in cells]
    return np.array(padded, dtype=np.int64), len(names) + 1
