import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from persona.errors import DataError, ModelError
from persona.policy.context_windows import (
    Prompt,
    check_keeps_everything,
    continue_prompts,
    read_prompts,
    read_windows,
    reply_log_probs,
)
from persona.policy.language_model import TokenRow
from persona.policy.sampling import Sampling, sample_tokens
from persona.policy.scoring import policy_log_probs
from tests.helpers.tiny_models import tiny_llama

MODEL = tiny_llama(60).eval()
SHOT, OTHER = (7, 8, 9, 10, 11), (12, 13, 14)
ASKED, REPLIES = (20, 21, 22), ((30, 31, 1), (32, 1))


def whole_rows(before: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities of both replies read as single rows, behind `before` and the prompt."""
    rows = [
        TokenRow((*before, *ASKED, *reply), (False,) * len((*before, *ASKED)) + (True,) * len(reply))
        for reply in REPLIES
    ]
    return policy_log_probs(MODEL, rows).sum(1)


def through_windows(rows: list[tuple[int, ...]], prompt: Prompt, **options: int) -> torch.Tensor:
    contexts = read_prompts(MODEL, read_windows(MODEL, rows, **options), [prompt])
    return reply_log_probs(MODEL, contexts, REPLIES, [0, 0])


@torch.no_grad()
def test_a_window_and_its_prompt_read_as_one_row() -> None:
    torch.testing.assert_close(
        through_windows([SHOT], Prompt(ASKED, (0,), len(SHOT))), whole_rows(SHOT), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_other_windows_and_longer_prompts_in_the_batch_change_nothing() -> None:
    windows = read_windows(MODEL, [OTHER, SHOT])
    prompts = [Prompt((40,) * 9, (0,), 3), Prompt(ASKED, (1,), len(SHOT)), Prompt((41,), (), 0)]
    contexts = read_prompts(MODEL, windows, prompts)
    replies = ((50, 51, 52, 53, 1), *REPLIES, (1,))
    found = reply_log_probs(MODEL, contexts, replies, [0, 1, 1, 2])[1:3]
    torch.testing.assert_close(found, whole_rows(SHOT), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_without_windows_only_the_prompt_is_read_wherever_it_starts() -> None:
    for start in (0, 50):
        found = through_windows([], Prompt(ASKED, (), start))
        torch.testing.assert_close(found, whole_rows(()), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_windows_are_a_set() -> None:
    scores = [
        through_windows(rows, Prompt(ASKED, (0, 1), 16), end=16) for rows in ([SHOT, OTHER], [OTHER, SHOT])
    ]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)
    assert (scores[0] - whole_rows(())).abs().min() > 1e-3


@torch.no_grad()
def test_only_the_last_tokens_are_kept_but_they_have_read_the_others() -> None:
    kept = read_windows(MODEL, [SHOT, OTHER], end=16, last=4)
    full = read_windows(MODEL, [SHOT, OTHER], end=16)
    assert kept.keys[0].shape[2] == 4 and kept.mask.tolist() == [[True] * 4, [False, True, True, True]]
    torch.testing.assert_close(kept.values[1][0], full.values[1][0, :, 1:5])
    torch.testing.assert_close(kept.keys[1][1, :, 1:], full.keys[1][1, :, :3])


def test_gradients_reach_the_weights_through_windows() -> None:
    model = tiny_llama(60)
    score = reply_log_probs(
        model,
        read_prompts(model, read_windows(model, [SHOT], end=8, last=2), [Prompt(ASKED, (0,), 8)]),
        REPLIES,
        [0, 0],
    )
    embedding = model.model.embed_tokens.weight
    score.sum().backward()
    assert embedding.grad is not None and embedding.grad[SHOT[0]].abs().max() > 0  # read by the window alone


def test_replies_continue_as_the_sampler_does() -> None:
    windows = read_windows(MODEL, [])
    prompts = [ASKED, (5, 6)]
    for temperature in (0.0, 1.0):
        sampling = Sampling(6, temperature)
        expected = sample_tokens(MODEL, prompts, sampling, seeds=[3, 4], stop_tokens=[1], banned=[[9], []])
        with torch.inference_mode():
            contexts = read_prompts(MODEL, windows, [Prompt(ids) for ids in prompts])
        found = continue_prompts(MODEL, contexts, sampling, seeds=[3, 4], stop_tokens=[1], banned=[[9], []])
        assert found == expected


def test_banned_tokens_and_windows_change_what_is_written() -> None:
    with torch.inference_mode():
        seen = read_prompts(MODEL, read_windows(MODEL, [SHOT]), [Prompt(ASKED, (0,), 5)])
        expected = sample_tokens(MODEL, [(*SHOT, *ASKED)], Sampling(6, 0.0), seeds=[0], stop_tokens=[1])
        assert continue_prompts(MODEL, seen, Sampling(6, 0.0), seeds=[0], stop_tokens=[1]) == expected
        first = expected[0][0]
        other = continue_prompts(MODEL, seen, Sampling(1, 0.0), seeds=[0], stop_tokens=[1], banned=[[first]])
    assert other[0] != [first]


def test_windows_must_fit() -> None:
    with pytest.raises(DataError, match="hold 1 to 4 tokens; got 3 to 5"):
        read_windows(MODEL, [SHOT, OTHER], end=4)
    with pytest.raises(DataError, match="hold 1 to any number of tokens; got 0 to 3"):
        read_windows(MODEL, [(), OTHER])


def test_a_model_that_forgets_is_refused() -> None:
    config = MistralConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
    )
    with pytest.raises(ModelError, match="keeps all keys and values; got MistralForCausalLM"):
        check_keeps_everything(MistralForCausalLM(config))
