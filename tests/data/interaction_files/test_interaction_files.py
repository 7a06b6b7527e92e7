"""Every published form of interactions, read back against the rows that were written."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dnr_jax.data import interaction_files, lists, requests
from dnr_jax.data.interaction_files import sides, simulator
from dnr_jax.data.interaction_files.layouts import LAYOUTS
from dnr_jax.data.interaction_files.settings import InteractionSettings, InteractionSimulation

REAL = Path(os.environ.get("DNR_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
SIZE = {"users": 12, "items": 60}


def real(name):
    if not (REAL / name).exists():
        pytest.skip(f"real data {name} is not in {REAL} (set DNR_TEST_DATA)")
    return REAL / name


def simulated(folder, layout):
    simulator.simulate(
        folder, InteractionSimulation(layout=layout, users=SIZE["users"], catalogue=SIZE["items"])
    )
    return folder


def read(path, **knobs):
    return interaction_files.read(path, InteractionSettings(**{"core": 0, **knobs}))


def raw_ids(events, name):
    keys, ids = getattr(events, f"{name}_keys"), getattr(events, name)
    return ids if keys is None else keys[ids]


def test_every_layout_is_simulated():
    assert set(simulator.WRITERS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_form_is_recognised_and_read_back(layout, tmp_path):
    folder = simulated(tmp_path / "files", layout)
    events = read(folder)
    rows = simulator._rows(np.random.default_rng(0), **SIZE)
    assert events.report["layout"] == layout
    named = {
        "columns": (lambda u: f"member {u}", lambda i: f"sku {i}"),
        "amazon": (simulator._member, simulator._asin),
    }.get(layout.split("_")[0], (lambda u: u + 1, lambda i: i + 1))
    half = 0.5 * (rows.item % 2) if layout == "movielens_csv" else 0
    liked = rows.rating - half >= 3 if layout != "sequences" else rows.rating > 0
    place = np.arange(len(rows.user)) - np.searchsorted(rows.user, rows.user)
    time = place if layout == "sequences" else rows.time
    expected = sorted(
        (named[0](u), t, n, named[1](i), float(z))
        for n, (u, i, t, z) in enumerate(zip(rows.user, rows.item, time, liked, strict=True))
    )
    found = zip(
        raw_ids(events, "user"), events.time, raw_ids(events, "item"), events.label, strict=True
    )
    assert [(u, t, i, z) for u, t, _, i, z in expected] == list(found)


@pytest.mark.parametrize(
    ("layout", "published", "beside"),
    [
        ("movielens_csv", "20M, 25M", "README.txt genome-scores.csv genome-tags.csv"),
        ("movielens_csv", "32M", "README.txt checksums.txt"),
        ("movielens_dat", "1M", "README users.dat"),
        ("movielens_dat", "10M", "README.html tags.dat allbut.pl split_ratings.sh"),
        ("movielens_100k", "100K", "README u.user u.info u1.base u1.test allbut.pl"),
    ],
)
def test_a_folder_as_published_is_read_whatever_else_it_holds(layout, published, beside, tmp_path):
    folder = simulated(tmp_path / published, layout)
    if published == "10M":  # half stars, written as short as they can be
        lines = (folder / "ratings.dat").read_text().splitlines()
        fields = [line.split("::") for line in lines]
        halves = [f"{u}::{i}::{float(r) - 0.5:g}::{t}\n" for u, i, r, t in fields]
        (folder / "ratings.dat").write_text("".join(halves))
        assert read(folder).label.sum() == sum(float(r) >= 3.5 for _, _, r, _ in fields)
    expected = read(folder).label.sum()
    csv = {"links.csv": "movieId,imdbId,tmdbId\n1,0114709,862\n"} if layout[-3:] == "csv" else {}
    csv |= {"tags.csv": "userId,movieId,tag,timestamp\n1,1,classic,9\n"} if csv else {}
    for name in (*beside.split(), *csv):
        (folder / name).write_text(csv.get(name, f"5c6d3bf1 {name}\n1 2 3\n"))
    events = read(folder)
    assert events.report["layout"] == layout
    assert events.label.sum() == expected > 0


@pytest.mark.parametrize(
    ("layout", "feature"),
    [
        ("movielens_csv", "genre"),
        ("movielens_dat", "genre"),
        ("movielens_100k", "genre"),
        ("amazon_2014_reviews", "category"),
        ("amazon_2018_reviews", "category"),
        ("amazon_2023_reviews", "store"),
    ],
)
def test_features_of_items_come_from_the_file_beside(layout, feature, tmp_path):
    folder = simulated(tmp_path / "files", layout)
    events = read(folder)
    genre = simulator._rows(np.random.default_rng(0), **SIZE).genre
    values = events.item_features[feature]
    assert set(values) == set(events.item.tolist())
    if feature == "category":
        assert set(values.values()) == {"Books"}
        return
    names = sides.FLAGS if layout == "movielens_100k" else simulator.GENRES
    number = {key: n for n, key in enumerate(named_items(layout))}
    keys = events.item_keys
    for code, value in values.items():
        assert value == names[genre[number[keys[code] if keys is not None else code]]]


def named_items(layout):
    if layout.startswith("amazon"):
        return [simulator._asin(i) for i in range(SIZE["items"])]
    return range(1, SIZE["items"] + 1)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ("amazon_2018_ratings", "amazon_2014_ratings"),
        ("amazon_2014_reviews", "amazon_2018_reviews"),
        ("amazon_2023_ratings", "amazon_2018_ratings"),
    ],
)
def test_another_amazon_year_is_one_error_that_names_both(seen, said, tmp_path):
    folder = simulated(tmp_path / "files", seen)
    with pytest.raises(ValueError, match=f"layout is {said} .* is {seen} ") as error:
        read(folder, layout=said)
    assert LAYOUTS[said].source in str(error.value)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("userId,movieId,rating,timestamp\n1,2,x,4\n", "line 2: found 'x' as rating"),
        ("userId,movieId,rating,timestamp\n1,2,3,4\nb,2,3,4\n", "line 3: found 'b' as user"),
        ("userId,movieId,rating,timestamp\n1,2,nan,4\n", "line 2: found 'nan' as rating"),
        ("userId,movieId,rating,timestamp\n1,2,3,soon\n", "line 2: found 'soon' as time"),
        ("userId,movieId,rating,timestamp\n1,2,3,9\n1,3,3,1600000000000\n", "mixes times"),
        ("userId,movieId,rating,timestamp\n", "holds no interaction"),
        ("", "is empty"),
        ("a,b,c\n1,2,3\n", "Name the columns, as in --columns user=WHO"),
        ("user,item\n,2\n", "as user, expected an id"),
    ],
)
def test_a_fault_is_told_by_file_line_and_value(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "ratings.csv", text))


def test_a_torn_gzip_file_and_a_folder_of_two_data_sets(tmp_path):
    packed = gzip.compress(b"user,item\n" * 1000)
    (tmp_path / "a.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="torn gzip"):
        read(tmp_path)
    two = simulated(tmp_path / "two", "amazon_2014_ratings")
    simulated(tmp_path / "other", "movielens_csv")
    (tmp_path / "other" / "ratings.csv").rename(two / "more.csv")
    with pytest.raises(ValueError, match="several files of interactions, more"):
        read(two)
    with pytest.raises(FileNotFoundError, match="holds no file of interactions"):
        read(tmp_path / "other")


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_columns_are_mapped_in_every_form(form, tmp_path):
    frame = pl.DataFrame(
        {
            "who": ["b", "b", "a"],
            "what": ["x", "y", "x"],
            "when": ["2020-01-02", "2020-01-01", "2021-01-01"],
        }
    )
    path = tmp_path / f"log.{form}"
    if form == "parquet":
        frame.with_columns(pl.col("when").str.to_date()).write_parquet(path)
    elif form == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if form == "tsv" else ",")
    events = read(tmp_path, columns="user=who,item=what,time=when")
    assert events.user_keys.tolist() == ["a", "b"]
    assert events.user.tolist() == [0, 1, 1]
    assert events.item_keys[events.item].tolist() == ["x", "y", "x"]
    assert events.time[1] == 1577836800
    assert events.label.tolist() == [1, 1, 1]


def test_ids_that_only_look_like_numbers_stay_apart(tmp_path):
    events = read(write(tmp_path / "a.csv", "user,item\n7,1\n007,1\n8,2\n"))
    assert events.user_keys.tolist() == ["007", "7", "8"]
    assert events.item_keys is None
    assert events.report["warnings"] == [
        "a.csv has no times: its rows are taken to be in the order of time"
    ]


def test_of_repeated_pairs_the_first_or_the_last_stays(tmp_path):
    path = write(tmp_path / "a.csv", "user,item,rating,time\n1,2,5,10\n1,3,1,11\n1,2,1,12\n")
    assert read(path).label.tolist() == [1, 0]
    last = read(path, repeats="last")
    assert (last.item.tolist(), last.label.tolist()) == ([3, 2], [0, 0])


def test_features_of_ones_own_tables(tmp_path):
    log = write(tmp_path / "log.csv", "user,item\nu,a\nu,b\n")
    write(tmp_path / "goods.tsv", "sku\tmaker\na\tX\nc\tY\nb\t\n")
    own = {"item_file": "goods.tsv", "item_columns": "id=sku,brand=maker"}
    events = read(log, **own)
    assert events.item_features == {"brand": {0: "X"}}
    settings = InteractionSettings(core=0, **own)
    assert [p.name for p in interaction_files.inputs(log, settings)] == ["log.csv", "goods.tsv"]
    with pytest.raises(ValueError, match="go together"):
        InteractionSettings(item_file="goods.tsv")
    with pytest.raises(ValueError, match="no column 'price'"):
        read(log, item_file="goods.tsv", item_columns="id=sku,price=price")


def test_ids_of_text_go_into_lists_and_raw_requests(tmp_path):
    folder = simulated(tmp_path / "files", "amazon_2023_ratings")
    events = read(folder)
    found = lists.build(events, slate=6, history=4)
    words = found.catalogue.vocabularies["item_id"]
    shown = events.item_keys[events.item[:6]]
    np.testing.assert_array_equal(words.encode(shown), found.items[0])
    encoders = requests.encoders_of(found, 8)
    user = events.user_keys[events.user[0]]
    encoded = requests.encode(encoders, [{"user": user, "items": [*shown, "B-new"]}])
    np.testing.assert_array_equal(encoded.request.candidates[0, :7, 0], [*found.items[0], 1])
    assert encoded.request.user[0, 0] == found.user[0]
    with pytest.raises(ValueError, match="must be text"):
        requests.encode(encoders, [{"items": [3]}])


def test_sequences_with_and_without_the_user_s_number(tmp_path):
    numbered = read(write(tmp_path / "a.txt", "4 9 8 7\n5 7\n9 8 9\n"))
    assert numbered.user.tolist() == [4, 4, 4, 5, 9, 9]
    assert numbered.item.tolist() == [9, 8, 7, 7, 8, 9]
    assert numbered.time.tolist() == [0, 1, 2, 0, 0, 1]
    plain = read(write(tmp_path / "b.txt", "4 9 8 7\n9 7\n5 8 9\n"))
    assert plain.user.tolist() == [1, 1, 1, 1, 2, 2, 3, 3, 3]
    assert plain.item.tolist()[:4] == [4, 9, 8, 7]
    with pytest.raises(ValueError, match="line 2: expected integers"):
        read(write(tmp_path / "c.txt", "1 2\n2 x\n"))


def test_published_counts_are_compared(tmp_path):
    folder = simulated(tmp_path / "files", "amazon_2014_reviews")
    report = read(folder, published="amazon_books").report
    assert not report["compared"]["agrees"]
    (warning,) = report["warnings"]
    assert "35,736 users, 38,121 items and 311,386 lists; here are 12 users" in warning


# Counted by other means: `wc -l`, `cut | sort -u | wc -l`, and json by line.
def test_movielens_latest_is_read_whole():
    events = read(real("ml-latest-small"))
    assert len(events.user) == 100_004
    assert len(np.unique(events.user)) == 671
    assert len(np.unique(events.item)) == 9_066
    assert events.item_features["genre"][1] == "Adventure"


def test_amazon_reviews_of_2018_are_read_with_their_brands():
    folder = real("amazon2018-gift-cards")
    lines = [json.loads(x) for x in (folder / "Gift_Cards_5.json").read_text().splitlines()]
    events = read(folder)
    pairs = {(x["reviewerID"], x["asin"]) for x in lines}
    found = zip(raw_ids(events, "user"), raw_ids(events, "item"), strict=True)
    assert set(found) == pairs
    assert events.report["rows"] == len(lines)
    assert events.report["layout"] == "amazon_2018_reviews"
    assert len(events.item_features["brand"]) > 100


def test_amazon_sequences_are_read_whole():
    events = read(real("amazon-sequences") / "Beauty.txt")
    text = (REAL / "amazon-sequences" / "Beauty.txt").read_text().split("\n")
    lines = [[int(n) for n in line.split()] for line in text if line]
    assert events.report["rows"] == sum(len(line) - 1 for line in lines)
    assert len(np.unique(events.user)) == len(lines) == 22_363
    assert events.item[events.user == lines[7][0]].tolist() == list(dict.fromkeys(lines[7][1:]))
