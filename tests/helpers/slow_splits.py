"""Row-by-row twins of splits, filters and leak counts, slow and plain."""

import pandas as pd


def latest_of_each_user(log: pd.DataFrame, wanted: dict[int, int]) -> list[int]:
    """Index labels of the last `wanted[n]` rows of every user with n rows, equal times in the order given."""
    labels: list[int] = []
    for _, rows in log.groupby("user_id"):
        mine = sorted(range(len(rows)), key=lambda place: (rows["timestamp"].iloc[place], place))
        labels += [rows.index[place] for place in mine[len(mine) - wanted[len(mine)] :]]
    return sorted(labels)


def core(log: pd.DataFrame, users: int, items: int) -> set[tuple[int, int]]:
    """Pairs of the k-core, one user or item dropped at a time."""
    pairs = set(zip(log["user_id"].tolist(), log["item_id"].tolist(), strict=True))
    while True:
        of_user = {user: [pair for pair in pairs if pair[0] == user] for user, _ in pairs}
        of_item = {item: [pair for pair in pairs if pair[1] == item] for _, item in pairs}
        bad = [group for group in of_user.values() if len(group) < users]
        bad += [group for group in of_item.values() if len(group) < items]
        if not bad:
            return pairs
        pairs -= set(bad[0])


def share_with_later(known: pd.DataFrame, target: pd.DataFrame, *, same_user: bool) -> float:
    """Share of target rows that some known row (of the same user) is later than."""
    found = 0
    for row in target.itertuples():
        others = known[known["user_id"] == row.user_id] if same_user else known
        found += any(moment > row.timestamp for moment in others["timestamp"])
    return found / len(target)


def pairs_of(log: pd.DataFrame) -> set[tuple[int, int]]:
    """Distinct pairs of user and item."""
    return set(zip(log["user_id"].tolist(), log["item_id"].tolist(), strict=True))
