"""A comparison of profiles in plain sentences: does it help, which method serves best, how sure is that.

A method is called better only where the corrected test and the interval both say so; nothing that went wrong is left
out because something else went well.
"""

from collections.abc import Mapping
from typing import Any

from app.fit_data import FEW_TEST_USERS
from app.headlines import show, show_value
from app.profile_methods import POOLED

Report = Mapping[str, Any]
BLIND = -0.5
"""Cosine of a belief with that of flipped choices above which the belief hardly minds who won."""
HARDLY = 0.3
"""R2 below which an attribute can hardly be read from the features."""
LITTLE = 0.05
"""Loss of accuracy under another user's comparisons below which a method hardly knows users."""

NAMED_AS_NEAR = 4
"""Methods that are named where several are not clearly worse than the best."""


def title_of(report: Report, name: str) -> str:
    """What a method is called in sentences."""
    return str(report["methods"][name]["title"])


def last_size(report: Report) -> int:
    """The context size at which methods are compared."""
    return int(report["context_sizes"][-1])


def figures(report: Report, name: str) -> Mapping[str, Any]:
    """A method's figures at the size at which methods are compared."""
    found: Mapping[str, Any] = report["methods"][name]["by_context"][f"k{last_size(report)}"]
    return found


def verdict_of(report: Report, name: str) -> str:
    """How a method compares with one model for everybody, in a word; nothing for that model itself."""
    for row in report["comparisons"]:
        if row["first"] == name:
            return "better" if row["is_better"] else "worse" if row["is_worse"] else "undecided"
    return ""


def answer(report: Report) -> str:
    """The user's question answered in one sentence: how far personalisation helps here."""
    personal = [name for name in report["order"] if name != POOLED]
    pooled = figures(report, POOLED)["accuracy"]
    if not personal:
        return (
            f"One model for everybody foretells {show(pooled, 'share')} of unseen users' choices; whether "
            "personalisation helps cannot be told without a personal method."
        )
    if last_size(report) and not report["split"]["shown"][f"k{last_size(report)}"]:
        return (
            "Whether personalisation helps cannot be told from this data: none of the unseen users has a comparison to "
            "show beside those that are asked of them. Collect several of each user, on different prompts."
        )
    best = max(personal, key=lambda name: figures(report, name)["accuracy"]["value"])
    own = figures(report, best)
    gain, verdict = own["over_pooled"], verdict_of(report, best)
    after = f"after {_shown(report)} of a user, {title_of(report, best)} foretells {show(own['accuracy'], 'share')}"
    over = f"where one model for everybody foretells {show_value(pooled['value'], 'share')}"
    change = show(gain, "points")
    if verdict == "better":
        return f"Personalisation helps here: {after} of that user's choices on new prompts, {over}: a gain of {change}."
    if verdict == "worse":
        return f"Personalisation does harm here: {after} of that user's choices on new prompts, {over}: {change}."
    return (
        f"Personalisation does not clearly help here: {after} of that user's choices on new prompts, {over}; the "
        f"difference of {change} may be luck{_why_undecided(report, best)}."
    )


def _why_undecided(report: Report, name: str) -> str:
    """Why a difference whose own interval is clear of 0 may still be luck; nothing where it is not clear of 0."""
    row = next(row for row in report["comparisons"] if row["first"] == name)
    if row["low"] <= 0.0 <= row["high"]:
        return ""
    count = len(report["comparisons"])
    tried = f"after correction for {count} comparisons with the one model" if count > 1 else "by permutation"
    return f", although its interval is clear of 0: p is {row['p_holm']:.2f} {tried}"


def sentences(report: Report) -> list[str]:
    """Which method serves best and how sure that is, then what else must be known; the answer itself is apart."""
    return [
        *_who_serves_best(report),
        *_how_even(report),
        *_what_it_knows(report),
        *_what_it_minds(report),
        *_what_features_hold(report),
        *facts_of(report),
    ]


def diagnostics_meanings(report: Report) -> list[str]:
    """What each diagnostic of the page means, a sentence each."""
    return [
        "Flipped labels: the cosine between what a user's choices make a method believe and what the opposite choices "
        "would; near -1 it reads who won, near +1 only what was asked about. None where no belief moves.",
        "Loudest over quietest: how far users' log-odds spread over the same pairs of replies, the 90 % quantile of "
        "users over the 10 % one; a policy that is trained on such rewards follows the loud ones.",
        f"Lost under another's comparisons: what remains of the accuracy after {last_size(report)} comparisons is not "
        "knowledge of the user if nothing is lost.",
        "Active axes: directions along which beliefs about users really differ; 0 means that all users are one. "
        "Methods over texts have no such axes; their labels are flipped, and their loudness is taken, by log-odds.",
        *_what_ranking_means(report),
    ]


def _what_ranking_means(report: Report) -> list[str]:
    if all(method["ranking"] is None for method in report["methods"].values()):
        return []
    return [
        "Policies: the reward is right where training raised the chosen reply over the rejected one by more than the "
        "base model had it; the policy is right where it would itself write the chosen reply rather than the other. "
        "Training to perfection could make it right as often as the fourth column says if nine of ten people agreed "
        "on each choice; gained and lost choices changed their ranking from the base model's."
    ]


def facts_of(report: Report) -> list[str]:
    """What must be known of the data beside the figures."""
    data, split = report["data"], report["split"]
    seeds = len(split["parts"])
    found = [
        f"Measured on {_count(split['measured_users'], 'user')} never trained on, on prompts that were never trained "
        f"on, over {seeds} {'split' if seeds == 1 else 'splits'} of {data['users']:,} users and "
        f"{data['prompts']:,} prompts."
    ]
    if split["measured_users"] < FEW_TEST_USERS:
        found.append(f"These are fewer than {FEW_TEST_USERS} users: intervals over so few say little.")
    if data["users_with_one"]:
        found.append(
            f"{_count(data['users_with_one'], 'user')} made a single comparison, of whom nothing can be both shown and "
            "asked."
        )
    found += [
        f"Left out of the data: {drop['count']:,} where {drop['reason']} (first in rows "
        f"{', '.join(map(str, drop['rows']))})."
        for drop in data["dropped"]
    ]
    near = split["overlap"]
    if near["near_training"] or near["near_context"]:
        found.append(
            f"Of the first split's {near['targets']:,} target prompts, {near['near_training']:,} nearly repeat one of "
            f"training and {near['near_context']:,} one of the contexts: as new as they seem, they are not. "
            "--group-near-duplicates keeps such prompts in one part."
        )
    if data["ties"]:
        share = show_value(data["ties"] / (data["ties"] + data["comparisons"]), "share")
        found.append(
            f"{_count(data['ties'], 'tie')}, {share} of what was judged, left out: all methods learn from choices "
            "alone, and are compared by who wins, on the same rows."
        )
    if data["contradictions"]:
        found.append(f"{data['contradictions']:,} choices contradict another one by the same user.")
    found += data["notes"]
    found += _objectives(report)
    if report["cut_replies"]:
        found.append(
            f"Of {report['cut_replies']:,} replies, which are long, methods over texts read only the beginning."
        )
    if report["constant_attributes"]:
        found.append(
            f"These attributes do not vary among the replies: {', '.join(report['constant_attributes'])}."
        )
    found += [
        f"{left['method']} could not be fitted and is left out: {left['reason']}"
        for left in report["left_out"]
    ]
    return found


def _objectives(report: Report) -> list[str]:
    """Where methods over named attributes take these from."""
    told = report["objectives"]
    if told["unread"]:
        return [f"The data's scores are not read as objectives: {told['unread']}."]
    if not told["scores"]:
        return []
    found = f"Methods over named attributes (direction, pro) read the data's own scores: {', '.join(told['scores'])}"
    if not told["unknown"]:
        return [f"{found}."]
    replies = "1 reply" if told["unknown"] == 1 else f"{told['unknown']:,} replies"
    return [f"{found}; an unknown score counts as average, in {replies}."]


def _who_serves_best(report: Report) -> list[str]:
    best, others = report["best"]["name"], report["best"]["others"]
    if not others:
        return []
    beaten = [title_of(report, row["first"]) for row in others if row["is_worse"]]
    near = sorted((row for row in others if not row["is_worse"]), key=lambda row: -row["difference"])
    found = f"{_capital(title_of(report, best))} serves best"
    if not near:
        return [f"{found}: it is better than every other method compared."]
    close = [f"{title_of(report, row['first'])} ({_gap(row)})" for row in near[:NAMED_AS_NEAR]]
    if len(near) > NAMED_AS_NEAR:
        close.append(f"{len(near) - NAMED_AS_NEAR} more")
    if beaten:
        found += f": it is better than {_join(beaten)}"
    return [f"{found}, but not clearly better than {_join(close)}."]


def _gap(row: Mapping[str, Any]) -> str:
    return show({"value": row["difference"], "ci95": [row["low"], row["high"]]}, "points")


def _how_even(report: Report) -> list[str]:
    best = report["best"]["name"]
    if best == POOLED:
        return []
    gains = report["methods"][best]["gains"]
    better, worse = (sum(sign * gain > 0 for gain in gains) / len(gains) for sign in (1, -1))
    tenth = figures(report, best)["worst_decile"]
    more, fewer, worst = show_value(better, "share"), show_value(worse, "share"), show(tenth, "share")
    found = [
        f"It foretells more choices of {more} of the users than the one model does, and fewer of {fewer}; of the tenth "
        f"of users whom it serves worst it foretells {worst}."
    ]
    agreed, apart = (report["methods"][best][key] for key in ("agreed", "controversial"))
    if apart is not None:
        also = "" if agreed is None else f", of pairs that they judged alike {show(agreed, 'share')}"
        found.append(
            f"Of pairs that several users judged differently it foretells {show(apart, 'share')}{also}."
        )
    return found


def _what_it_knows(report: Report) -> list[str]:
    best = report["best"]["name"]
    if best == POOLED:
        return []
    gap = report["methods"][best]["shuffle_gap"]
    change = show({"value": -gap["value"], "ci95": [-gap["ci95"][1], -gap["ci95"][0]]}, "points")
    low, high = gap["ci95"]
    if low > 0:
        known = "what it knows is the user"
    elif high < LITTLE:
        known = "it hardly knows one user from another"
    else:
        known = "whether it knows one user from another is not sure"
    return [f"Shown another user's comparisons instead, it changes by {change}: {known}."]


def _what_it_minds(report: Report) -> list[str]:
    """A warning where the best method's beliefs follow what was asked about more than who won."""
    best = report["best"]["name"]
    flip = report["methods"][best]["label_flip"]
    if flip is None or flip["ci95"][0] < BLIND:
        return []
    return [
        f"Its beliefs hardly mind who won: after the opposite choices they point the same way (cosine "
        f"{show(flip, 'metric')}, where -1 is right), so they rest on what was asked about."
    ]


def _what_features_hold(report: Report) -> list[str]:
    read = {name: value for name, value in report["features"]["attribute_r2"].items() if value is not None}
    poor = [
        f"{name} ({value:.2f})"
        for name, value in sorted(read.items(), key=lambda it: it[1])
        if value < HARDLY
    ]
    if not poor:
        return []
    return [
        f"The features hardly hold {_join(poor)} (R2, 1 is all of it): no method can learn a taste for what they lack. "
        "Others can be named with --features."
    ]


def _shown(report: Report) -> str:
    size, mean = last_size(report), report["split"]["shown"][f"k{last_size(report)}"]
    if mean > size - 0.05:
        return _count(size, "comparison")
    return f"up to {_count(size, 'comparison')} ({mean:.1f} on average)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
