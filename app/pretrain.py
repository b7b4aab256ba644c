"""`persona pretrain`: trains the embedded language model from film conversations and openly licensed dialogues."""

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from app.errors import StoreError
from persona.data.dialogues import read_dialogues
from persona.policy.device import resolve_device
from persona.policy.tokenizer import train_tokenizer
from persona.recipes.pretrain import PretrainConfig, build_model, pretrain, token_rows
from simulators.world.conversations import SLOTS, film_conversations

Message = dict[str, str]

_REAL_SHARE = 0.2
_VOCABULARY = 4096
_HELD_OUT_ROWS = 64
_WISHES = (
    "comedy drama thriller horror romance western mystery animation adventure crime fantasy war musical funny sad "
    "tense warm dark light gentle wild scary slow happy"
).split()


def main(
    dialogues: Path,
    out: Path,
    *,
    minutes: float | None = None,
    tokens: int | None = None,
    seed: int = 0,
    resume: bool = False,
    console: Console | None = None,
) -> None:
    """Train a model and leave a Hugging Face folder in `out`, with its log beside it.

    Args:
        dialogues: Folder of dialogues as JSON lines; one in fifty is held out.
        out: Folder to write.
        minutes: Stop at the first evaluation after so long; `resume` goes on from there.
        tokens: Tokens to train on in all; None takes the recipe's default.
        seed: Draws weights, text and order.
        resume: Whether `out` may hold a stopped training of the same settings.
        console: Where progress is shown.

    Raises:
        StoreError: `out` holds something and `resume` is False.
        DataError: The dialogues cannot be read.
    """
    config = PretrainConfig(seed=seed) if tokens is None else PretrainConfig(seed=seed, tokens=tokens)
    if out.exists() and any(out.iterdir()) and not resume:
        raise StoreError(
            f"--out must be an empty folder; got {out}, which is not. Pass --resume to go on, or choose another."
        )
    real = list(read_dialogues(dialogues))
    order = np.random.default_rng(seed).permutation(len(real))
    held, kept = ([real[i] for i in part] for part in np.split(order, [len(real) // 50]))
    # A model goes on only with the tokens it began with, whatever has become of the grammar since.
    begun = (out / "tokenizer.json").exists()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out) if begun else _fit_tokenizer(kept, seed)
    model = build_model(config, tokenizer)
    model.config.persona_slots = sorted(SLOTS)
    state = out / "state"
    state.mkdir(parents=True, exist_ok=True)
    fresh = film_conversations(np.random.default_rng((seed, 2)), words=_WISHES)
    held_out = {
        "dialogues": _rows(_repeat(held, seed), tokenizer, config),
        "film": _rows(fresh, tokenizer, config),
    }
    columns = (
        TextColumn("pre-training"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=console) as progress,
        (out / "log.jsonl").open("a", encoding="utf-8") as log,
    ):
        task = progress.add_task("", total=config.tokens)

        def report(row: dict[str, float]) -> None:
            log.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
            log.flush()
            losses = ", ".join(f"{k[5:]} {v:.3f}" for k, v in row.items() if k.startswith("loss_"))
            progress.update(task, completed=row["tokens"], description=losses)
            _export(model, tokenizer, out)

        pretrain(
            config,
            model,
            token_rows(_mixture(kept, seed), tokenizer, config.context),
            held_out=held_out,
            state_folder=state,
            report=report,
            device=str(resolve_device("auto")),
            minutes=minutes,
        )


def _fit_tokenizer(dialogues: Sequence[list[Message]], seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer of equal shares of real dialogues and film conversations."""
    world = film_conversations(np.random.default_rng((seed, 1)), words=_WISHES)
    texts = [m["content"] for dialogue in dialogues[:20_000] for m in dialogue]
    texts += [m["content"] for _ in range(20_000) for m in next(world)]
    return train_tokenizer(texts, vocab_size=_VOCABULARY, slots=sorted(SLOTS))


def _export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model in bf16 as an ordinary Hugging Face folder."""
    half = copy.deepcopy(model)
    nn.Module.to(half, "cpu", torch.bfloat16)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _mixture(real: Sequence[list[Message]], seed: int) -> Iterator[list[Message]]:
    """Film conversations and real dialogues at the fixed share of conversations."""
    rng = np.random.default_rng((seed, 3))
    remarks = [m["content"] for dialogue in real for m in dialogue[:3] if 10 < len(m["content"]) < 80]
    film = film_conversations(rng, remarks=remarks, words=_WISHES)
    chat = _repeat(real, seed)
    while True:
        yield next(chat) if rng.random() < _REAL_SHARE else next(film)


def _repeat(dialogues: Sequence[list[Message]], seed: int) -> Iterator[list[Message]]:
    rng = np.random.default_rng((seed, 4))
    while True:
        for index in rng.permutation(len(dialogues)):
            yield dialogues[index]


def _rows(
    conversations: Iterator[list[Message]], tokenizer: PreTrainedTokenizerFast, config: PretrainConfig
) -> torch.Tensor:
    rows = token_rows(conversations, tokenizer, config.context)
    return torch.from_numpy(np.stack([next(rows) for _ in range(_HELD_OUT_ROWS)]))
