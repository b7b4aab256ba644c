"""`persona pretrain`: trains the embedded language model from film conversations and openly licensed dialogues."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from persona.data.dialogues import read_dialogues
from persona.policy.tokenizer import train_tokenizer
from persona.recipes.pretrain import PretrainConfig, build_model, pretrain, token_rows
from simulators.world.conversations import SLOTS, film_conversations

Message = dict[str, str]

_REAL_SHARE = 0.2
_WISHES = (
    "comedy drama thriller horror romance western mystery animation adventure crime fantasy war musical funny sad "
    "tense warm dark light gentle wild scary slow happy"
).split()


def main(
    dialogues: Path,
    out: Path,
    config: PretrainConfig,
    *,
    vocab_size: int = 4096,
    console: Console | None = None,
) -> None:
    """Train a model and leave a Hugging Face folder in `out`, with its log beside it.

    Args:
        dialogues: Folder of dialogues as JSON lines; one in fifty is held out.
        out: Folder to write; a stopped run with the same folder goes on where it was.
        config: Shape and length.
        vocab_size: Tokens of the tokenizer.
        console: Where progress is shown.
    """
    torch.set_num_threads(max(1, torch.get_num_threads()))
    real = list(read_dialogues(dialogues))
    order = np.random.default_rng(config.seed).permutation(len(real))
    held, kept = order[: len(real) // 50], order[len(real) // 50 :]
    world = film_conversations(np.random.default_rng((config.seed, 1)), words=_WISHES)
    sample = [m["content"] for i in kept[:20_000] for m in real[i]]
    sample += [m["content"] for _ in range(20_000) for m in next(world)]
    tokenizer = train_tokenizer(sample, vocab_size=vocab_size, slots=sorted(SLOTS))
    model = build_model(config, tokenizer)
    model.config.persona_slots = sorted(SLOTS)
    state = out / "state"
    state.mkdir(parents=True, exist_ok=True)
    held_rows = _rows(_repeat([real[i] for i in held], config.seed), tokenizer, config, 64)
    fresh = film_conversations(np.random.default_rng((config.seed, 2)), words=_WISHES)
    held_out = {"dialogues": held_rows, "film": _rows(fresh, tokenizer, config, 64)}
    stream = token_rows(_mixture([real[i] for i in kept], config.seed), tokenizer, config.context)
    device = "cuda" if torch.cuda.is_available() else "cpu"
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

        pretrain(config, model, stream, held_out=held_out, state_folder=state, report=report, device=device)
    shutil.rmtree(state)


def _export(model: torch.nn.Module, tokenizer: object, out: Path) -> None:
    """Write the model in bf16 as an ordinary Hugging Face folder."""
    half = {
        name: value.to(torch.bfloat16)
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    dtype = model.config.dtype
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out, state_dict=half)
    model.config.dtype = dtype
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
    conversations: Iterator[list[Message]], tokenizer: object, config: PretrainConfig, count: int
) -> torch.Tensor:
    rows: Iterator[NDArray[np.int64]] = token_rows(conversations, tokenizer, config.context)
    return torch.from_numpy(np.stack([next(rows) for _ in range(count)]))
