from pathlib import Path

import numpy as np
import pytest
import torch

from persona.errors import DataError, ModelError
from persona.features import StateEncoder, StateSettings, parse_features
from persona.policy.language_model import nano_folder

NANO = str(nano_folder())
TEXTS = ["a slow film about the sea", "why?", "because it is warm, and kind, and long enough to be cut"]


def encoder(**settings: object) -> StateEncoder:
    return StateEncoder(StateSettings(NANO, **settings), device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "last", "first"])
def test_a_text_alone_has_the_states_that_it_has_in_a_batch(pooling: str) -> None:
    model = encoder(pooling=pooling, layers=(1, -1))
    together = model.encode(TEXTS)
    alone = torch.cat([model.encode([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert together.shape == (3, 2 * 256)


def test_pooling_reads_the_tokens_that_it_names() -> None:
    mean, last, first = (encoder(pooling=pooling).encode(TEXTS[:1]) for pooling in ("mean", "last", "first"))
    states = encoder(pooling="last", max_tokens=1).encode(TEXTS[:1])
    assert not torch.equal(mean, last)
    assert not torch.equal(last, first)
    # The last token alone, without what came before it, is another state.
    assert not torch.allclose(states, last)


def test_unit_rows_have_length_one() -> None:
    torch.testing.assert_close(encoder(unit=True).encode(TEXTS).norm(dim=1), torch.ones(3))


def test_wrong_models_layers_and_texts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"`{tmp_path}` must be the folder or id"):
        StateEncoder(StateSettings(str(tmp_path)))
    with pytest.raises(ModelError, match=r"between -6 and 5.*got \[9\]"):
        encoder(layers=(9,))
    with pytest.raises(DataError, match=r"at least one token; got none in rows \[1\]"):
        encoder().encode(["a", ""])
    assert encoder().encode([]).shape == (0, 256)


def test_blocks_of_models_are_cached_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = parse_features([f"encoder={NANO}"], cache=tmp_path, device="cpu")
    first = features.compute(["why?", "why?"], TEXTS[:2])
    cosine = first[f"encoder={NANO} cosine"]
    assert cosine[1].item() == pytest.approx(1.0, abs=1e-5)  # the reply says what was asked
    monkeypatch.setattr(StateEncoder, "encode", None)
    again = features.compute(["why?", "why?"], TEXTS[:2])
    for name, block in first.items():
        np.testing.assert_array_equal(block.numpy(), again[name].numpy())


def test_states_read_prompt_and_reply() -> None:
    blocks = parse_features([f"states={NANO}"], device="cpu").compute(["One?", "Two?"], ["Same.", "Same."])
    assert {name: tuple(block.shape) for name, block in blocks.items()} == {
        f"states={NANO} last": (2, 256),
        f"states={NANO} mean": (2, 512),
    }
    assert not torch.equal(blocks[f"states={NANO} mean"][0], blocks[f"states={NANO} mean"][1])
