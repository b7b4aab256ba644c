from pathlib import Path

import numpy as np
import pytest
import torch

from persona.errors import DataError, ShapeError
from persona.policy.conditioned import ConditionedPolicy
from persona.policy.prefix import prefixed_log_probs
from persona.policy.scoring import policy_log_probs
from persona.profiles.user_tokens import GENERIC, UserTokenPolicy, UserTokens
from persona.recipes.user_tokens import UserPairs, UserTokensConfig, train_user_tokens
from tests.helpers.tiny_models import tiny_language_model

TALK = [{"role": "user", "content": "What shall I watch?"}]
SHORT, LONG = "yes", "You may like this film because it is warm and slow."
SMALL = UserTokensConfig(tokens=3, steps=2, pairs_per_step=4)


def two_kinds(each: int = 3) -> UserPairs:
    """Users who want the short reply, and as many who want the long one."""
    model = tiny_language_model()
    short, long = (model.encode_reply(TALK, reply) for reply in (SHORT, LONG))
    users = np.arange(2 * each)
    chosen = [short if user % 2 else long for user in users]
    rejected = [long if user % 2 else short for user in users]
    return UserPairs(users, chosen, rejected)


class TestPrefix:
    def test_embeddings_of_tokens_as_prefix_are_those_tokens(self) -> None:
        language_model = tiny_language_model()
        row = language_model.encode_reply(TALK, SHORT)
        model = language_model.model
        head, rest = row.ids[:3], row._replace(ids=row.ids[3:], policy=row.policy[3:])
        prefix = model.get_input_embeddings()(torch.tensor([head]))
        torch.testing.assert_close(
            prefixed_log_probs(model, [rest], prefix), policy_log_probs(model, [row]), atol=1e-5, rtol=1e-5
        )

    def test_a_row_alone_has_the_figures_that_it_has_in_a_batch(self) -> None:
        language_model = tiny_language_model()
        rows = [language_model.encode_reply(TALK, reply) for reply in (SHORT, LONG)]
        prefix = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
        together = prefixed_log_probs(language_model.model, rows, prefix).sum(1)
        alone = [prefixed_log_probs(language_model.model, [rows[i]], prefix[[i]]).sum() for i in range(2)]
        torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


class TestTokens:
    def test_everybody_starts_as_the_generic_user(self) -> None:
        for clusters in (0, 3):
            tokens = UserTokens(4, 2, 5, clusters=clusters)
            vectors = tokens(torch.tensor([GENERIC, 0, 3]))
            assert vectors.shape == (3, 2, 5)
            torch.testing.assert_close(vectors, tokens.generic.expand(3, 2, 5))

    def test_mixtures_by_hand(self) -> None:
        tokens = UserTokens(1, 1, 1, clusters=2, start=torch.tensor([[5.0]]))
        with torch.no_grad():
            tokens.centres.copy_(torch.tensor([[1.0], [3.0]]))
        place = torch.log(torch.tensor([[3.0, 1.0]]))
        # Weights 3/4 and 1/4 less one half each: 5 + 1/4 - 3/4.
        assert tokens.of_places(place).item() == pytest.approx(4.5)

    def test_wrong_sizes_are_named(self) -> None:
        with pytest.raises(ShapeError, match="got 0, 1, 1, 0 and None"):
            UserTokens(0, 1, 1)
        policy = ConditionedPolicy.build(tiny_language_model(), 0, 0, rank=2, seed=0)
        with pytest.raises(ShapeError, match="width 32 of the model's embeddings; got 7"):
            UserTokenPolicy(policy, UserTokens(1, 1, 7))
        with pytest.raises(DataError, match="must be positive; got 0"):
            UserTokenPolicy(policy, UserTokens(1, 1, 32), scale=0)


@pytest.mark.integration
@pytest.mark.parametrize("clusters", [0, 2])
def test_learns_whose_way_is_whose_and_finds_a_stranger_s(clusters: int) -> None:
    pairs = two_kinds()
    config = UserTokensConfig(tokens=4, clusters=clusters, steps=120, pairs_per_step=6, token_lr=5e-2)
    language_model = tiny_language_model()
    trained = train_user_tokens(pairs, language_model, config, seed=0)
    for user in range(6):
        wants_short = trained.scores(trained.tokens.place[user].detach(), [TALK], [SHORT], [LONG]).item()
        assert (wants_short > 0.5) == bool(user % 2), user
    # The generic user takes no side.
    assert trained.scores(None, [TALK], [SHORT], [LONG]).item() == pytest.approx(0.5, abs=0.3)
    short, long = (language_model.encode_reply(TALK, reply) for reply in (SHORT, LONG))
    for chosen, rejected in ((short, long), (long, short)):
        place = trained.adapt_user([chosen] * 2, [rejected] * 2, ridge=1e-3)
        likes_short = trained.scores(place, [TALK], [SHORT], [LONG]).item() > 0.5
        assert likes_short == (chosen is short)


def test_gradient_reaches_tokens_and_lora_alone() -> None:
    language_model = tiny_language_model()
    trained = train_user_tokens(two_kinds(), language_model, SMALL, seed=0)
    assert all(not weight.requires_grad for weight in language_model.model.parameters())
    before = [weight.clone() for weight in trained.policy.adapter_parameters()]
    rows = language_model.encode_reply(TALK, SHORT), language_model.encode_reply(TALK, LONG)
    trained.adapt_user([rows[0]], [rows[1]], steps=1)
    assert all(torch.equal(a, b) for a, b in zip(before, trained.policy.adapter_parameters(), strict=True))


def test_without_choices_a_stranger_is_the_generic_user() -> None:
    trained = train_user_tokens(two_kinds(), tiny_language_model(), SMALL, seed=0)
    place = trained.adapt_user([], [])
    assert not place.any()
    assert torch.equal(
        trained.scores(place, [TALK], [SHORT], [LONG]), trained.scores(None, [TALK], [SHORT], [LONG])
    )
    assert trained.scores(None, [], [], []).shape == (0,)


def test_saved_policy_scores_the_same_and_a_seed_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = (train_user_tokens(two_kinds(), tiny_language_model(), SMALL, seed=1) for _ in range(2))
    assert torch.equal(first.tokens.place, second.tokens.place)
    first.save(tmp_path)
    again = UserTokenPolicy.load(tmp_path, tiny_language_model())
    place = first.tokens.place[0].detach()
    assert torch.equal(
        again.scores(place, [TALK], [SHORT], [LONG]), first.scores(place, [TALK], [SHORT], [LONG])
    )


def test_wrong_pairs_are_named() -> None:
    pairs = two_kinds()
    with pytest.raises(ShapeError, match=r"one entry a pair; got \[5, 6\]"):
        train_user_tokens(pairs._replace(users=pairs.users[:5]), tiny_language_model(), SMALL, seed=0)
    with pytest.raises(DataError, match="at least one preference pair; got 0"):
        train_user_tokens(
            UserPairs(np.zeros(0, dtype=np.int64), [], []), tiny_language_model(), SMALL, seed=0
        )
