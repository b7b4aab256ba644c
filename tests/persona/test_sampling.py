from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from persona.errors import DataError, ShapeError
from persona.policy import Sampling, sample_tokens
from persona.policy.batches import rows_at_once
from persona.policy.sampling import draw_tokens
from tests.helpers.tiny_models import tiny_llama

VOCABULARY = 50
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [5, 6], [20, 21, 22, 23]]
SEEDS = [11, 12, 13, 14, 15]


def lively(model: PreTrainedModel) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0.0, 0.3, generator=generator)
    model.eval()
    return model


def gpt2() -> PreTrainedModel:
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    return lively(GPT2LMHeadModel(config))


def sliding() -> PreTrainedModel:
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
    )
    return lively(MistralForCausalLM(config))


def llama() -> PreTrainedModel:
    model = tiny_llama(VOCABULARY)
    model.eval()
    return model


def draw(model: PreTrainedModel, **options: object) -> list[list[int]]:
    given: dict[str, object] = {"seeds": SEEDS, "stop_tokens": [1, 2, 3], **options}
    sampling = given.pop("sampling", Sampling(max_new_tokens=12))
    return sample_tokens(model, PROMPTS, sampling, **given)  # type: ignore[arg-type]


def longhand(model: PreTrainedModel, prompt: list[int], seed: int, steps: int, stops: list[int]) -> list[int]:
    """One row without cache, padding or batch."""
    rng = np.random.Generator(np.random.PCG64(seed))
    reply: list[int] = []
    for uniform in rng.random(steps, dtype=np.float32):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, -1]
        cumulative = torch.softmax(logits.double(), -1).cumsum(-1)
        token = int((cumulative <= float(uniform)).sum())
        if token in stops:
            break
        reply.append(token)
    return reply


@pytest.mark.parametrize("build", [llama, gpt2, sliding])
def test_greedy_equals_the_librarys_own_generation(build: object) -> None:
    model = build()  # type: ignore[operator]
    ours = draw(model, sampling=Sampling(10, temperature=0.0), stop_tokens=[VOCABULARY - 1])
    for prompt, reply in zip(PROMPTS, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=VOCABULARY - 1,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert reply == [token for token in theirs if token != VOCABULARY - 1]


@pytest.mark.parametrize("build", [llama, sliding])
def test_sampling_equals_one_row_at_a_time_without_cache(build: object) -> None:
    model = build()  # type: ignore[operator]
    stops = list(range(10))  # rows end at different steps, so the batch shrinks
    ours = draw(model, stop_tokens=stops)
    rows = zip(PROMPTS, SEEDS, strict=True)
    assert ours == [longhand(model, prompt, seed, 12, stops) for prompt, seed in rows]
    assert len({len(reply) for reply in ours}) > 2


def test_a_rows_draw_does_not_depend_on_its_batch() -> None:
    model = llama()
    together = draw(model)
    assert draw(model, batch_size=2) == together
    alone = [
        sample_tokens(model, [prompt], Sampling(max_new_tokens=12), seeds=[seed], stop_tokens=[1, 2, 3])[0]
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    assert alone == together


@pytest.mark.parametrize("build", [llama, gpt2])
def test_a_batch_keeps_its_keys_and_values_within_their_room(build: object) -> None:
    model = build()  # type: ignore[operator]
    cache: Any = DynamicCache(config=model.config)
    model(torch.tensor([[1]]), past_key_values=cache, use_cache=True)
    token = sum(kept.nbytes for layer in cache.layers for kept in (layer.keys, layer.values))
    assert rows_at_once(model, 100) == 2**29 // (100 * token)
    assert rows_at_once(model, 2**40) == 1
    odd = SimpleNamespace(num_attention_heads=[2, 4], hidden_size=64)
    stranger: Any = SimpleNamespace(device=model.device, config=SimpleNamespace(get_text_config=lambda: odd))
    assert rows_at_once(stranger, 64) == 2**29 // (8192 * 64)


def test_a_shorter_limit_cuts_the_same_reply() -> None:
    model = llama()
    short = draw(model, sampling=Sampling(max_new_tokens=4))
    assert short == [reply[:4] for reply in draw(model)]


def test_equal_prompts_are_read_once_and_drawn_apart() -> None:
    model = llama()
    prompts = [PROMPTS[0], PROMPTS[2], PROMPTS[0], PROMPTS[0]]
    seeds = [1, 2, 3, 1]
    read: list[list[int]] = []
    options = {"seeds": seeds, "stop_tokens": [1]}
    plain = sample_tokens(model, prompts, Sampling(8), **options)  # type: ignore[arg-type]
    grouped = sample_tokens(
        model,
        prompts,
        Sampling(8),
        groups=[7, 5, 7, 7],
        on_rows=lambda rows: read.append(rows.tolist()),
        **options,  # type: ignore[arg-type]
    )
    assert grouped == plain
    assert plain[0] == plain[3] != plain[2]
    assert read[:2] == [[0, 1], [0, 2, 3, 1]]


def test_what_all_prompts_begin_with_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    prompts = [[*range(4, 30), *prompt] for prompt in PROMPTS]
    read: list[int] = []

    def count(_: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        read.append(kwargs["input_ids"].numel())

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    options = {"seeds": SEEDS, "stop_tokens": [1, 2, 3]}
    shared = sample_tokens(model, prompts, Sampling(12), **options)  # type: ignore[arg-type]
    once, longest = read[:2], max(map(len, PROMPTS))
    hook.remove()
    monkeypatch.setattr("persona.policy.sampling.LEAST_SHARED", 1000)
    assert shared == sample_tokens(model, prompts, Sampling(12), **options)  # type: ignore[arg-type]
    assert once == [26, len(PROMPTS) * longest]
    monkeypatch.setattr("persona.policy.sampling.LEAST_SHARED", 1)
    same = [prompts[0]] * 3
    alike = sample_tokens(model, same, Sampling(12), seeds=[5, 5, 6], stop_tokens=[1])
    assert alike[0] == alike[1] != alike[2]


def test_rows_are_announced_before_they_are_computed() -> None:
    model = llama()
    announced: list[int] = []

    def check(module: object, inputs: object, output: Tensor) -> None:
        assert len(output) == announced[-1]

    model.get_input_embeddings().register_forward_hook(check)
    draw(model, stop_tokens=list(range(20)), on_rows=lambda rows: announced.append(len(rows)))
    assert announced[0] == 5 and announced[-1] < 5


def test_banned_tokens_are_never_produced() -> None:
    model = llama()
    banned = [list(range(20, VOCABULARY)), [], list(range(25)), [4], [7]]
    replies = draw(model, banned=banned)
    assert all(not set(reply) & set(no) for reply, no in zip(replies, banned, strict=True))
    assert replies[1] == draw(model)[1]
    greedy = draw(model, banned=banned, sampling=Sampling(12, temperature=0.0))
    assert all(not set(reply) & set(no) for reply, no in zip(greedy, banned, strict=True))


def test_tokens_follow_their_probabilities() -> None:
    logits = torch.tensor([0.5, 0.2, 0.0, 0.3]).log()
    uniform = (torch.arange(1000) + 0.5) / 1000
    tokens = draw_tokens(logits.expand(1000, 4), uniform, 1.0, 1.0)
    assert torch.bincount(tokens, minlength=4).tolist() == [500, 200, 0, 300]


def test_temperature_sharpens_as_a_power() -> None:
    logits = torch.tensor([0.8, 0.2]).log()
    uniform = (torch.arange(1700) + 0.5) / 1700
    tokens = draw_tokens(logits.expand(1700, 2), uniform, 0.5, 1.0)
    assert torch.bincount(tokens).tolist() == [1600, 100]  # 0.8^2 : 0.2^2 = 16 : 1


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    logits = torch.tensor([0.1, 0.5, 0.1, 0.3]).log()
    uniform = (torch.arange(800) + 0.5) / 800
    tokens = draw_tokens(logits.expand(800, 4), uniform, 1.0, 0.6)
    assert torch.bincount(tokens, minlength=4).tolist() == [0, 500, 0, 300]  # 0.5 < 0.6 <= 0.5 + 0.3


def test_the_largest_uniform_still_meets_a_possible_token() -> None:
    logits = torch.full((1, 300), -torch.inf)
    logits[0, 3:7] = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    for top_p in (1.0, 0.999):
        token = draw_tokens(logits, torch.tensor([1 - 2**-24]), 1.0, top_p)
        assert 3 <= token.item() < 7


def test_nothing_to_do_is_done() -> None:
    assert sample_tokens(llama(), [], Sampling(), seeds=[], stop_tokens=[1]) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_tokens": 0}, "got 0, 1.0 and 1.0"),
        ({"temperature": -0.5}, "got 48, -0.5 and 1.0"),
        ({"temperature": float("nan")}, "got 48, nan and 1.0"),
        ({"top_p": 0.0}, "got 48, 1.0 and 0.0"),
        ({"top_p": 1.5}, "got 48, 1.0 and 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Sampling(**settings)  # type: ignore[arg-type]


def test_one_seed_a_prompt_is_needed() -> None:
    with pytest.raises(ShapeError, match=r"each of the 5 prompts; got \{'seeds': 2, 'banned': 1\}"):
        draw(llama(), seeds=[1, 2], banned=[[1]])


def test_empty_prompts_are_refused() -> None:
    with pytest.raises(DataError, match=r"got empty ones in rows \[1\]"):
        sample_tokens(llama(), [[1], []], Sampling(), seeds=[1, 2], stop_tokens=[1])
