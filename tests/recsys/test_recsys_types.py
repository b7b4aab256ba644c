import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.errors import InteractionError
from recsys.types import Histories, histories_from_log, levels_in, relevant_items

LOG = pd.DataFrame({"user_id": [7, 7, 3, 7, 9], "item_id": [0, 2, 1, 2, 3], "level": [0, 1, 4, 3, 2]})


def test_histories_store_level_plus_one_in_the_order_of_users() -> None:
    found = histories_from_log(LOG, [3, 7, 5], n_items=4).toarray()
    # Item 2 was shown to user 7 twice and keeps level 3; user 5 is unknown; user 9 was not asked for.
    assert found.tolist() == [[0, 5, 0, 0], [1, 0, 4, 0], [0, 0, 0, 0]]


def test_histories_of_a_repeated_user_are_refused() -> None:
    with pytest.raises(InteractionError, match=r"name each user once; got \[7\] again"):
        histories_from_log(LOG, [7, 3, 7], n_items=4)


def test_histories_of_items_outside_the_catalogue_are_refused() -> None:
    with pytest.raises(InteractionError, match=r"lie in 0\.\.2; got \[3\]"):
        histories_from_log(LOG, [7], n_items=3)


def test_levels_in_agrees_with_the_dense_matrix(small_histories: Histories) -> None:
    rows, items = np.divmod(np.arange(6 * 30), 30)
    expected = small_histories.toarray().ravel() - 1
    assert levels_in(small_histories, rows, items).tolist() == expected.tolist()


def test_levels_in_an_empty_history_are_absent() -> None:
    found = levels_in(csr_array((2, 4), dtype=np.float32), np.array([0, 1]), np.array([3, 0]))
    assert found.tolist() == [-1, -1]


def test_relevant_items_are_those_from_a_level_on(small_histories: Histories) -> None:
    found = relevant_items(small_histories, 2).toarray()
    assert np.array_equal(found, (small_histories.toarray() >= 3).astype(np.float32))
