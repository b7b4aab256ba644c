"""Pre-training: the tokenizer, the rows, and that a stopped run goes on as if it had not stopped."""

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from persona.errors import DataError
from persona.policy.tokenizer import train_tokenizer
from persona.recipes.pretrain import PretrainConfig, build_model, pretrain, token_rows

TALK = [
    [{"role": "user", "content": f"number {i}?"}, {"role": "assistant", "content": f"It is <title> {i}."}]
    for i in range(40)
]
TEXTS = [message["content"] for talk in TALK for message in talk]
SMALL = {"context": 32, "batch": 4, "hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "feed_forward": 64}


def render(talk: list[dict[str, str]], *, prompt: bool = False) -> str:
    spoken = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in talk)
    return spoken + "<|assistant|>" * prompt


def test_slots_are_single_tokens_that_survive_decoding() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, slots=["<title>"])
    assert len(tokenizer) == 300
    ids = tokenizer("see <title> now", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<title>") in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "see <title> now"


def test_a_prompt_is_a_prefix_of_the_conversation() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, slots=["<title>"])
    prompt = tokenizer(render(TALK[0][:1], prompt=True), add_special_tokens=False)["input_ids"]
    whole = tokenizer(render(TALK[0]), add_special_tokens=False)["input_ids"]
    assert whole[: len(prompt)] == prompt


def test_rows_hold_every_token_once() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, slots=["<title>"])
    rows = token_rows(cycle(TALK), tokenizer, 16)
    stream = np.concatenate([next(rows) for _ in range(20)])
    text = "".join(render(talk) for talk in TALK)
    assert text.startswith(str(tokenizer.decode(stream[:60].tolist())))


@pytest.mark.integration
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, slots=["<title>"])
    config = PretrainConfig(tokens=32 * 4 * 12, evaluate_every=6, warmup_steps=2, **SMALL)
    held_out = {"talk": torch.from_numpy(np.stack([next(token_rows(cycle(TALK), tokenizer, 32))]))}

    class StoppedError(Exception):
        pass

    def stop_at_half(row: dict[str, float]) -> None:
        reports.append(row)

    def run(folder: Path, stop: bool) -> dict[str, torch.Tensor]:
        model = build_model(config, tokenizer)
        rows = token_rows(cycle(TALK), tokenizer, 32)

        def limited() -> object:
            for count, row in enumerate(rows):
                if stop and count == 4 * 8:
                    raise StoppedError
                yield row

        pretrain(config, model, limited(), held_out=held_out, state_folder=folder, report=stop_at_half)  # type: ignore[arg-type]
        return dict(model.state_dict())

    reports: list[dict[str, float]] = []
    whole = run(tmp_path / "whole", stop=False)
    assert reports[-1]["loss_talk"] < reports[0]["loss_talk"]
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", stop=True)
    resumed = run(tmp_path / "parts", stop=False)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, slots=["<title>"])
    config = PretrainConfig(tokens=32 * 4, evaluate_every=1, **SMALL)

    def train(chosen: PretrainConfig) -> None:
        rows = token_rows(cycle(TALK), tokenizer, 32)
        model = build_model(chosen, tokenizer)
        pretrain(chosen, model, rows, held_out={}, state_folder=tmp_path, report=lambda row: None)

    train(config)
    train(config)
    with pytest.raises(
        DataError, match=r"state\.safetensors must be a whole state .* other tensors at model\."
    ):
        train(config.model_copy(update={"layers": 2}))
    (tmp_path / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(DataError, match=r"state\.safetensors must be a whole state .*; got .*[Hh]eader"):
        train(config)
