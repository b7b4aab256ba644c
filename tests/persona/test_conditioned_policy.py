import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from persona.errors import ModelError, ShapeError
from persona.policy import ConditionedPolicy, LanguageModel, RankGate, TokenRow
from persona.policy.checkpoint import fingerprint
from persona.types import Condition, Conversation
from tests.helpers.tiny_models import tiny_language_model, tiny_llama, tiny_tokenizer

CONVERSATIONS: list[Conversation] = [
    [{"role": "user", "content": "What film tonight?"}],
    [{"role": "system", "content": "Be warm."}, {"role": "user", "content": "Something slow?"}],
    [{"role": "user", "content": "yes"}],
]
REPLIES = ["You may like <title>.", "no", "What a wonderful story, because it is warm!"]
SEEDS = [1, 2, 3]
DIALOGUE: Conversation = [
    *CONVERSATIONS[0],
    {"role": "assistant", "content": "Try <title>."},
    {"role": "user", "content": "no"},
    {"role": "assistant", "content": "Then <title>!"},
]


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return tiny_language_model()


def trained(base: LanguageModel, seed: int = 0) -> ConditionedPolicy:
    """A policy whose up-projections are not zero any more, as after training."""
    policy = ConditionedPolicy.build(base, latent_dim=3, direction_dim=2, rank=4, hidden=8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.1, generator=generator)
    return policy


def conditions(rows: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(rows, 3, generator=generator)
    direction = torch.randn(rows, 2, generator=generator)
    latent[0], direction[1] = 0.0, 0.0  # a slider user, a latent user, one with both
    return Condition(latent, direction, (None,) * rows)


def absent(rows: int = 3) -> Condition:
    return Condition.absent(rows, latent_dim=3, direction_dim=2)


def longhand(model: torch.nn.Module, row: TokenRow) -> list[Tensor]:
    """Log-probability of each policy token of one row, unpadded."""
    ids = torch.tensor([row.ids])
    scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
    found = scores.gather(1, ids[0, 1:, None])[:, 0]
    return [value for value, mine in zip(found, row.policy[1:], strict=True) if mine]


def test_a_new_policy_is_the_base_model_for_everyone(base: LanguageModel) -> None:
    policy = ConditionedPolicy.build(base, 3, 2, seed=0)
    with torch.no_grad():
        scores = policy.log_probs(CONVERSATIONS, REPLIES, conditions())
    reference = policy.reference_log_probs(policy.encode_replies(CONVERSATIONS, REPLIES)).sum(1)
    torch.testing.assert_close(scores, reference)


def test_an_absent_condition_is_exactly_the_plain_adapter(base: LanguageModel) -> None:
    policy = trained(base)
    plain = policy.log_probs(CONVERSATIONS, REPLIES)
    assert torch.equal(policy.log_probs(CONVERSATIONS, REPLIES, absent()), plain)
    ids = torch.tensor([base.encode(CONVERSATIONS[0])] * 2)
    ungated = policy.peft_model(input_ids=ids).logits
    with policy._hooks.using(policy.gate(torch.zeros(2, 3), torch.zeros(2, 2))):
        assert torch.equal(policy.peft_model(input_ids=ids).logits, ungated)
    assert not torch.allclose(policy.log_probs(CONVERSATIONS, REPLIES, conditions()), plain)
    assert policy.generate(CONVERSATIONS, seeds=SEEDS) == policy.generate(
        CONVERSATIONS, absent(), seeds=SEEDS
    )


def test_scores_equal_one_unpadded_row_at_a_time(base: LanguageModel) -> None:
    policy = trained(base)
    rows = policy.encode_replies(CONVERSATIONS, REPLIES)
    reference = policy.reference_log_probs(rows)
    for index, row in enumerate(rows):
        expected = torch.stack(longhand(base.model, row)).float()
        torch.testing.assert_close(reference[index, : len(expected)], expected, rtol=1e-4, atol=1e-4)
        assert not reference[index, len(expected) :].any()
        with policy._hooks.using(None):
            adapted = sum(longhand(policy.peft_model, row))
        found = policy.log_probs(CONVERSATIONS, REPLIES)[index]
        torch.testing.assert_close(found.double(), adapted, rtol=1e-4, atol=1e-4)


def test_a_mixed_batch_equals_one_user_at_a_time(base: LanguageModel) -> None:
    policy = trained(base)
    condition = conditions()
    together = policy.log_probs(CONVERSATIONS, REPLIES, condition)
    texts = policy.generate(CONVERSATIONS, condition, seeds=SEEDS, max_new_tokens=12)
    for row in range(3):
        alone = condition.select([row])
        score = policy.log_probs(CONVERSATIONS[row : row + 1], REPLIES[row : row + 1], alone)
        torch.testing.assert_close(score[0], together[row], rtol=1e-4, atol=1e-4)
        text = policy.generate(CONVERSATIONS[row : row + 1], alone, seeds=[SEEDS[row]], max_new_tokens=12)
        assert text == texts[row : row + 1]


def test_users_with_one_prompt_and_seed_get_replies_of_their_own(base: LanguageModel) -> None:
    policy = trained(base)
    prompts = CONVERSATIONS[:1] * 4
    condition = Condition.concatenate([conditions(), absent(1)])
    texts = policy.generate(prompts, condition, seeds=[7] * 4, max_new_tokens=16)
    assert len(set(texts)) > 1
    assert texts[3] == policy.generate(prompts[:1], seeds=[7], max_new_tokens=16)[0]


def test_only_policy_tokens_of_a_dialogue_are_scored(base: LanguageModel) -> None:
    policy = trained(base)
    row = base.encode_dialogue(DIALOGUE)
    scores, mask = policy.token_log_probs([row, *policy.encode_replies(CONVERSATIONS, REPLIES)])
    assert mask.sum(1)[0] == sum(row.policy)
    torch.testing.assert_close(
        scores[0, : sum(row.policy)].double(),
        torch.stack(longhand(policy.peft_model, row)),
        rtol=1e-4,
        atol=1e-4,
    )
    assert not scores[~mask].any()
    total = policy.sequence_log_probs([row])[0]
    first = policy.log_probs([DIALOGUE[:1]], [DIALOGUE[1]["content"]])[0]
    second = policy.log_probs([DIALOGUE[:3]], [DIALOGUE[3]["content"]])[0]
    torch.testing.assert_close(total, first + second, rtol=1e-4, atol=1e-4)


def test_gradient_reaches_adapter_and_gate_but_not_the_base(base: LanguageModel) -> None:
    policy = trained(base)
    policy.log_probs(CONVERSATIONS, REPLIES, conditions()).sum().backward()
    for parameter in [*policy.adapter_parameters(), *policy.gate.parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any()
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def test_two_policies_on_one_base_leave_it_and_each_other_alone(base: LanguageModel) -> None:
    names = [name for name, _ in base.model.named_modules()]
    one, other = trained(base, 0), trained(base, 1)
    assert [name for name, _ in base.model.named_modules()] == names
    weights = {p.data_ptr() for p in base.model.parameters()}
    shared = {p.data_ptr() for n, p in one.peft_model.named_parameters() if "lora_" not in n}
    assert shared == weights
    assert not torch.allclose(one.log_probs(CONVERSATIONS, REPLIES), other.log_probs(CONVERSATIONS, REPLIES))


def test_building_is_seeded_and_leaves_the_global_generator_alone(base: LanguageModel) -> None:
    state = torch.get_rng_state()
    one, same, other = (ConditionedPolicy.build(base, 3, 2, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b, c in zip(
        one.adapter_parameters(), same.adapter_parameters(), other.adapter_parameters(), strict=True
    ):
        assert torch.equal(a, b) and (not a.any() or not torch.equal(a, c))
    assert torch.equal(one.gate.to_ranks, same.gate.to_ranks)


def test_text_conditions_go_into_the_system_message(base: LanguageModel) -> None:
    policy = trained(base)
    told = Condition(torch.zeros(3, 3), torch.zeros(3, 2), ("Be short.", None, "Be short."))
    by_hand = [
        [{"role": "system", "content": "Be short."}, *CONVERSATIONS[0]],
        CONVERSATIONS[1],
        [{"role": "system", "content": "Be short."}, *CONVERSATIONS[2]],
    ]
    expected = policy.log_probs(by_hand, REPLIES)
    torch.testing.assert_close(policy.log_probs(CONVERSATIONS, REPLIES, told), expected)
    written = policy.generate(CONVERSATIONS, told, seeds=SEEDS, max_new_tokens=8)
    assert written == policy.generate(by_hand, seeds=SEEDS, max_new_tokens=8)


def test_banned_slots_are_not_written(base: LanguageModel) -> None:
    policy = trained(base)
    prompts, seeds = CONVERSATIONS[:1] * 40, list(range(40))
    free = policy.generate(prompts, seeds=seeds, max_new_tokens=30)
    assert any("<title>" in text for text in free)
    held = policy.generate(prompts, seeds=seeds, max_new_tokens=30, banned=[{"<title>", "<unknown>"}] * 40)
    assert not any("<title>" in text for text in held)


def test_hidden_states_are_means_over_the_reply(base: LanguageModel) -> None:
    policy = trained(base)
    found = policy.hidden_states(CONVERSATIONS, REPLIES)
    for row, encoded in enumerate(policy.encode_replies(CONVERSATIONS, REPLIES)):
        states = base.model(input_ids=torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states[
            -1
        ]
        mine = torch.tensor(encoded.policy)
        torch.testing.assert_close(found[row], states[0, mine].mean(0), rtol=1e-4, atol=1e-4)


def test_saved_policy_loads_to_the_same_bits(base: LanguageModel, tmp_path: Path) -> None:
    policy = trained(base)
    policy.gate.fit_scale(conditions().latent, conditions().direction)
    policy.save(tmp_path / "policy")
    again = ConditionedPolicy.load(tmp_path / "policy", base)
    condition = conditions()
    before, after = (p.log_probs(CONVERSATIONS, REPLIES, condition) for p in (policy, again))
    assert torch.equal(before, after)
    assert all(p.requires_grad for p in again.adapter_parameters())
    policy.save(tmp_path / "policy")
    assert {f.name for f in (tmp_path / "policy").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "gate.json",
        "gate.safetensors",
    }


def test_the_folder_is_an_ordinary_peft_folder_of_the_average_user(
    base: LanguageModel, tmp_path: Path
) -> None:
    policy = trained(base)
    policy.save(tmp_path)
    card = json.loads((tmp_path / "adapter_config.json").read_text())
    assert card["base_model_name_or_path"] == "tiny"
    assert card["target_modules"] == sorted(card["target_modules"])
    fresh = tiny_language_model()
    plain = PeftModel.from_pretrained(fresh.model, str(tmp_path)).eval()
    ids = torch.tensor([base.encode(CONVERSATIONS[0])] * 2)
    gate = policy.gate(torch.zeros(2, 3), torch.zeros(2, 2))
    with policy._hooks.using(gate):
        gated = policy.peft_model(input_ids=ids).logits
    assert torch.equal(plain(input_ids=ids).logits, gated)


@pytest.mark.parametrize("name", ["gate.json", "adapter_model.safetensors"])
def test_an_incomplete_folder_is_refused(base: LanguageModel, tmp_path: Path, name: str) -> None:
    trained(base).save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=rf"lacks \['{name}'\]"):
        ConditionedPolicy.load(tmp_path, base)


def test_a_mixture_of_two_saves_is_refused(base: LanguageModel, tmp_path: Path) -> None:
    trained(base, 0).save(tmp_path / "a")
    trained(base, 1).save(tmp_path / "b")
    (tmp_path / "a" / "gate.safetensors").replace(tmp_path / "b" / "gate.safetensors")
    with pytest.raises(ModelError, match=r"\['gate.safetensors'\] changed since"):
        ConditionedPolicy.load(tmp_path / "b", base)


@pytest.mark.parametrize("content", ["not json", '{"rank": 4}'])
def test_a_damaged_description_is_refused(base: LanguageModel, tmp_path: Path, content: str) -> None:
    trained(base).save(tmp_path)
    (tmp_path / "gate.json").write_text(content)
    with pytest.raises(
        ModelError, match=r"gate.json must describe a gate; .* \((JSONDecode|Validation)Error\)"
    ):
        ConditionedPolicy.load(tmp_path, base)


def test_another_base_model_is_refused(base: LanguageModel, tmp_path: Path) -> None:
    trained(base).save(tmp_path)
    tokenizer = tiny_tokenizer()
    for model in (tiny_llama(len(tokenizer), layers=3), tiny_llama(len(tokenizer), seed=1)):
        other = LanguageModel.wrap(model, tokenizer, name="other")
        said = f"has fingerprint {fingerprint(base.model)[:12]}, got {fingerprint(model)[:12]}"
        with pytest.raises(ModelError, match=said):
            ConditionedPolicy.load(tmp_path, other)


def test_a_policy_may_be_loaded_onto_its_base_in_half_precision(base: LanguageModel, tmp_path: Path) -> None:
    trained(base).save(tmp_path)
    halved = tiny_language_model()
    halved.model.bfloat16()
    assert fingerprint(halved.model) == fingerprint(base.model)
    assert len(ConditionedPolicy.load(tmp_path, halved).log_probs(CONVERSATIONS, REPLIES)) == 3


def test_a_gate_of_another_rank_is_refused(base: LanguageModel) -> None:
    policy = trained(base)
    other = RankGate(3, 2, modules=14, rank=2, hidden=8, generator=torch.Generator())
    with pytest.raises(
        ModelError, match=r"gate for 14 modules of rank 2 and an adapter of 14 modules of rank \[4\]"
    ):
        ConditionedPolicy(base, policy.peft_model, other)


def test_rows_must_agree(base: LanguageModel) -> None:
    policy = trained(base)
    with pytest.raises(ShapeError, match=r"each conversation \(3\); got 2 rows"):
        policy.generate(CONVERSATIONS, absent(2), seeds=SEEDS)
    with pytest.raises(ShapeError, match="each of the 3 conversations; got 1"):
        policy.log_probs(CONVERSATIONS, ["yes"])
    with pytest.raises(ShapeError, match=r"each conversation \(1\); got 2 rows"):
        policy.sequence_log_probs([base.encode_dialogue(DIALOGUE)], absent(2))


def test_no_rows_are_no_trouble(base: LanguageModel) -> None:
    policy = trained(base)
    assert policy.generate([], absent(0), seeds=[]) == []
    assert policy.log_probs([], [], absent(0)).shape == (0,)
    assert policy.hidden_states([], []).shape[0] == 0


def test_bfloat16_base_stays_close_to_float32() -> None:
    tokenizer = tiny_tokenizer()
    scores = []
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_llama(len(tokenizer))
        model.to(dtype=dtype)  # type: ignore[call-arg]
        policy = trained(LanguageModel.wrap(model, tokenizer, name="tiny"))
        scores.append(policy.log_probs(CONVERSATIONS, REPLIES, conditions()))
        policy.generate(CONVERSATIONS, conditions(), seeds=SEEDS, max_new_tokens=4)
    assert scores[1].dtype == torch.float32
    torch.testing.assert_close(scores[1], scores[0], rtol=0.05, atol=0.5)


def test_next_tokens_are_scored_as_in_a_pass_of_each_row_alone(base: LanguageModel) -> None:
    policy, told = trained(base), conditions()
    prefixes = [base.encode(conversation) for conversation in CONVERSATIONS]
    tokens = [[3, 40], [7], [40, 3, 9]]
    found = policy.next_log_probs(prefixes, tokens, told)
    assert found.shape == (3, 3) and found[1, 1:].eq(0).all()
    for row, (prefix, wanted) in enumerate(zip(prefixes, tokens, strict=True)):
        for place, token in enumerate(wanted):
            alone = TokenRow((*prefix, token), (False,) * len(prefix) + (True,))
            expected = policy.token_log_probs([alone], told.select([row]))[0][0, 0]
            torch.testing.assert_close(found[row, place], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, policy.next_log_probs(prefixes, tokens))
    with pytest.raises(ShapeError, match="got 3 rows"):
        policy.next_log_probs(prefixes[:2], tokens[:2], told)
