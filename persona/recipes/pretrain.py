"""Pre-trains a small Llama chat model from scratch on a stream of conversations.

One pass over text that never repeats, next-token loss on every message, AdamW with warm-up and cosine decay, bf16
autocast where the processor has it. The state is saved at every evaluation, so a stopped run goes on where it was.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from persona.errors import DataError

Report = Callable[[dict[str, float]], None]


class PretrainConfig(BaseModel):
    """Shape of the model and length of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Tokens to train on.
    tokens: int = 12_000_000
    # Tokens in a row; also the longest conversation that is learned whole.
    context: int = 256
    # Rows in an optimiser step.
    batch: int = 16
    # Width of the model.
    hidden: int = 256
    # Transformer layers.
    layers: int = 5
    # Attention heads.
    heads: int = 4
    # Key and value heads, a divisor of `heads`.
    kv_heads: int = 2
    # Width of the feed-forward layers.
    feed_forward: int = 768
    # Peak learning rate.
    learning_rate: float = 2e-3
    # Steps until the peak.
    warmup_steps: int = 100
    # Decoupled weight decay of matrices.
    weight_decay: float = 0.1
    # Steps between evaluations, which also save the state.
    evaluate_every: int = 200
    # Seed of the weights.
    seed: int = 0


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights that fits the tokenizer."""
    torch.manual_seed(config.seed)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(shape)


def token_rows(
    conversations: Iterator[list[dict[str, str]]], tokenizer: PreTrainedTokenizerFast, length: int
) -> Iterator[NDArray[np.int64]]:
    """Cut the endless stream of tokenised conversations into rows of `length` tokens."""
    held: list[int] = []
    while True:
        while len(held) < length:
            batch = [tokenizer.apply_chat_template(next(conversations), tokenize=False) for _ in range(64)]
            for ids in tokenizer(batch, add_special_tokens=False)["input_ids"]:
                held.extend(ids)
        yield np.asarray(held[:length], dtype=np.int64)
        del held[:length]


def next_token_loss(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Mean next-token loss of rows of tokens of shape (B, T), in nats a token."""
    dtype_ok = rows.device.type == "cuda" or torch.backends.mkldnn.is_available()
    with torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=dtype_ok):
        logits = model(input_ids=rows, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten())


def pretrain(
    config: PretrainConfig,
    model: LlamaForCausalLM,
    rows: Iterator[NDArray[np.int64]],
    *,
    held_out: dict[str, Tensor],
    state_folder: Path,
    report: Report,
    device: str = "cpu",
    minutes: float | None = None,
) -> None:
    """Train `model` in place, reporting held-out loss by name.

    Args:
        config: Length and rates of the run.
        model: Weights to train.
        rows: Rows of `config.context` tokens, without end.
        held_out: Named rows of tokens (B, T) that `rows` never yields.
        state_folder: Where the state is kept between evaluations; a state found there is taken up.
        report: Called at every evaluation with step, tokens, losses and speed.
        device: Where to train.
        minutes: Stop at the first evaluation after so long, with the state kept; None trains to the end.

    Raises:
        DataError: The state found is damaged, or that of another model.
    """
    nn.Module.to(model, device).train()
    steps = config.tokens // (config.context * config.batch)
    optimizer = _optimizer(model, config)
    first = _load_state(state_folder, model, optimizer)
    for _ in range(first * config.batch):
        next(rows)
    started, losses = time.monotonic(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, steps, config.warmup_steps)
        batch = torch.from_numpy(np.stack([next(rows) for _ in range(config.batch)])).to(device)
        loss = next_token_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % config.evaluate_every == 0 or step + 1 == steps:
            elapsed = time.monotonic() - started
            tokens = (step + 1) * config.context * config.batch
            speed = (step + 1 - first) * config.context * config.batch / elapsed
            held = {
                f"loss_{name}": _held_out_loss(model, value.to(device)) for name, value in held_out.items()
            }
            done = {"step": step + 1, "tokens": tokens, "tokens_per_s": speed}
            report({**done, "loss_train": float(np.mean(losses)), **held})
            losses.clear()
            _save_state(state_folder, model, optimizer, step + 1)
            if minutes is not None and elapsed > 60 * minutes:
                return


def _optimizer(model: LlamaForCausalLM, config: PretrainConfig) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then cosine decay to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * progress)))


@torch.no_grad()
def _held_out_loss(model: LlamaForCausalLM, rows: Tensor) -> float:
    model.eval()
    loss = float(np.mean([next_token_loss(model, part).item() for part in rows.split(16)]))
    model.train()
    return loss


def _save_state(folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, step: int) -> None:
    weights = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    tensors = {f"model.{name}": value.contiguous() for name, value in weights.items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    tensors["step"] = torch.tensor(step)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "state.safetensors.partial"
    save_file(tensors, partial)
    partial.replace(folder / "state.safetensors")


def _load_state(folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.AdamW) -> int:
    """Take up a saved state; returns the number of steps already done."""
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as err:
        raise _unusable(path, str(err)) from err
    found = {name: value.shape for name, value in tensors.items()}
    wanted = _state_shapes(model, optimizer)
    if strange := sorted(name for name in found | wanted if found.get(name) != wanted.get(name)):
        raise _unusable(path, f"other tensors at {', '.join(strange[:3])}")
    weights = {
        name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")
    }
    model.load_state_dict(weights, strict=False)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(tensors["step"])


def _state_shapes(model: LlamaForCausalLM, optimizer: torch.optim.AdamW) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of a state of this model."""
    weights = {name: value.shape for name, value in model.state_dict().items() if name != "lm_head.weight"}
    shapes = {f"model.{name}": shape for name, shape in weights.items()} | {"step": torch.Size()}
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, weight in enumerate(trained):
        shapes[f"optimizer.{index}.step"] = torch.Size()
        shapes |= {f"optimizer.{index}.{name}": weight.shape for name in ("exp_avg", "exp_avg_sq")}
    return shapes


def _unusable(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} must be a whole state of this model; got {reason}. Restore it, or train anew in another folder."
    )
