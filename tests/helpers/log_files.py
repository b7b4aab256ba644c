"""Small logs on disk in the layouts that their publishers use, and a plain view of a data set to compare with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recsys.columns import ITEM, LEVEL, TIMESTAMP, USER
from recsys.data.dataset import Dataset

KUAIRAND_LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
ALIEXPRESS_HEADER = [
    "search_id",
    *(f"categorical_{place}" for place in range(1, 17)),
    *(f"numerical_{place}" for place in range(1, 64)),
    "click",
    "conversion",
]


def write_lines(path: Path, lines: Sequence[str], *, encoding: str = "utf-8") -> Path:
    """A text file of `lines`, each ended by a line feed, in a folder that is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def outside_rows(dataset: Dataset) -> list[tuple[object, ...]]:
    """User and item by their outside ids, level and time if there is one, row by row, with a plain loop."""
    rows: list[tuple[object, ...]] = []
    for row in dataset.log.to_dict("records"):
        named = (dataset.users.ids[row[USER]], dataset.items.ids[row[ITEM]], row[LEVEL])
        rows.append((*named, row[TIMESTAMP]) if dataset.has_times else named)
    return rows


def feature_of(dataset: Dataset, side: str, name: str) -> dict[str, object]:
    """One feature by outside id; `side` is "users" or "items"."""
    entities = dataset.users if side == "users" else dataset.items
    return dict(zip(entities.ids, entities.features[name], strict=True))


def write_people(folder: Path, *, original: bool) -> None:
    """The people of MovieLens 100K or 1M: users 1 to 12, of whom the third is called by Latin-1 letters."""
    jobs = ["técnico" if user == 3 else "writer" for user in range(1, 13)]
    lines = [
        f"{user}|{20 + user}|F|{job}|{90000 + user}" if original else f"{user}::M::25::{job}::{90000 + user}"
        for user, job in enumerate(jobs, start=1)
    ]
    write_lines(folder / ("u.user" if original else "users.dat"), lines, encoding="latin-1")


def write_kuairand(folder: Path, *, in_data: bool = True) -> Path:
    """Five standard rows, one random, three users and videos; video 12 is not in its table."""
    home = folder / "data" if in_data else folder

    def row(user: int, video: int, place: int, steps: str, is_random: int = 0) -> str:
        flags = ",".join(steps)
        return f"{user},{video},20220408,900,{1649379600123 + 1000 * place},{flags},0,0,0,0,90,100,0,0,0,{is_random},1"

    standard = [row(0, 10, 0, "000"), row(0, 11, 1, "100"), row(1, 10, 2, "110"), row(1, 12, 3, "111")]
    write_lines(home / "log_standard_4_08_to_4_21_pure.csv", [KUAIRAND_LOG, *standard])
    write_lines(home / "log_standard_4_22_to_5_08_pure.csv", [KUAIRAND_LOG, row(2, 10, 4, "101")])
    write_lines(home / "log_random_4_22_to_5_08_pure.csv", [KUAIRAND_LOG, row(2, 11, 5, "000", 1)])
    write_lines(
        home / "user_features_pure.csv",
        [
            "user_id,user_active_degree,is_lowactive_period,follow_user_num,follow_user_num_range,onehot_feat0",
            '0,full_active,0,5,"(0,10]",1',
            '1,high_active,0,70,"(50,100]",0',
            "2,full_active,1,0,0,",
        ],
    )
    write_lines(
        home / "video_features_basic_pure.csv",
        [
            "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
            "music_id,music_type,tag",
            '10,7,NORMAL,2022-03-01,ShortImport,1.0,19000.0,720,1280,3,9.0,"39,12"',
            "11,8,AD,2022-03-02,ShortImport,1.0,,720,1280,4,,",
        ],
    )
    write_lines(home / "video_features_statistic_pure.csv", ["video_id,counts", "10,4"])
    return folder


def write_retailrocket(folder: Path) -> Path:
    """Five events of two visitors; item 30 has no properties."""
    write_lines(
        folder / "events.csv",
        [
            "timestamp,visitorid,event,itemid,transactionid",
            "1433221332117,257597,view,20,",
            "1433221999000,257597,addtocart,20,",
            "1433222000000,257597,transaction,20,5",
            "1433223000000,9,view,30,",
            "1433224000999,9,view,100,",
        ],
    )
    write_lines(
        folder / "item_properties_part1.csv",
        [
            "timestamp,itemid,property,value",
            "1435460400000,20,categoryid,1338",
            "1441508400000,20,790,n552.000 639502",
            "1434000000000,20,categoryid,1000",
        ],
    )
    write_lines(
        folder / "item_properties_part2.csv",
        ["timestamp,itemid,property,value", "1435460400000,100,categoryid,1338"],
    )
    write_lines(folder / "category_tree.csv", ["categoryid,parentid", "1338,1000", "1000,"])
    return folder


def ali_ccp_features(values: Mapping[str, Sequence[str]]) -> str:
    """A list of features: field, value and weight, in the separators of Ali-CCP."""
    return "\x01".join(f"{field}\x02{value}\x031.0" for field, each in values.items() for value in each)


def write_ali_ccp(folder: Path, *, with_test: bool = True) -> Path:
    """Two users with three indices, two items; the third row of train has a purchase without a click."""
    people = {
        "a1": {"101": ["77"], "121": ["3"], "109_14": ["5", "6"]},
        "a2": {"101": ["5"], "121": ["4"]},
        "a3": {"101": ["77"], "121": ["9"]},
    }
    shoes = {"205": ["900"], "206": ["1"], "207": ["2"], "210": ["31", "32"], "216": ["8"], "301": ["1"]}
    hat = {"1205": ["5"], "210": ["33"], "205": ["1001"], "206": ["1"], "508": ["4"]}
    common = [f"{index},{len(each)},{ali_ccp_features(each)}" for index, each in people.items()]

    def row(number: int, labels: str, index: str, item: Mapping[str, Sequence[str]]) -> str:
        return f"{number},{labels},{index},{len(item)},{ali_ccp_features(item)}"

    write_lines(folder / "common_features_train.csv", common)
    rows = [row(1, "0,0", "a1", shoes), row(2, "1,1", "a2", hat), row(3, "0,1", "a3", shoes)]
    write_lines(folder / "sample_skeleton_train.csv", rows)
    if with_test:
        write_lines(folder / "common_features_test.csv", common[1:2])
        write_lines(folder / "sample_skeleton_test.csv", [row(9, "1,0", "a2", shoes)])
    return folder


def aliexpress_row(page: int, product: int, labels: str) -> str:
    """A row whose user columns follow the page and whose item columns follow the product."""
    user_categories, item_categories = [page % 3] * 9, [product] * 7
    user_numbers, item_numbers = [page / 10] * 23, [product / 100] * 40
    cells = [page, *user_categories, *item_categories, *user_numbers, *item_numbers]
    return ",".join(map(str, cells)) + f",{labels}"


def write_aliexpress(folder: Path) -> Path:
    """Two result pages to train on, one to test on, two products."""
    header = ",".join(ALIEXPRESS_HEADER)
    train = [aliexpress_row(7, 1, "0,0"), aliexpress_row(7, 2, "1,1"), aliexpress_row(5, 1, "1,0")]
    write_lines(folder / "train.csv", [header, *train])
    write_lines(folder / "test.csv", [header, aliexpress_row(12, 2, "0,0")])
    return folder


def bandit_lines(rows: int = 6, *, seed: int = 0) -> list[str]:
    """The log of a campaign of Open Bandit, of three items at three positions, shown to two kinds of users."""
    rng = np.random.default_rng(seed)
    who = [f"user_feature_{place}" for place in range(4)]
    header = ["", "timestamp", "item_id", "position", "click", "propensity_score", *who]
    lines = [",".join([*header, *(f"user-item_affinity_{item}" for item in range(3))])]
    for row in range(rows):
        kind = "ab"[int(rng.integers(2))]
        shown = f"2019-11-24 00:0{row % 10}:13.442536+00:00,{row % 3},{1 + row % 3},{int(row == 2)},{0.25 + row / 100}"
        lines.append(f"{row},{shown},{kind},{kind}{kind},,x,0.0,0.5,{row}.0")
    return lines


def write_open_bandit(folder: Path) -> Path:
    """A campaign and its items."""
    write_lines(folder / "men.csv", bandit_lines())
    write_lines(
        folder / "item_context.csv",
        [
            ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3",
            *(f"{item},{item},{item / 4},c{item},d,e" for item in range(3)),
        ],
    )
    return folder
