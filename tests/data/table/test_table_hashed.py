"""Hashed columns: two rows a value, the same ones wherever it is read, and counted collisions."""

import hashlib

import numpy as np
import polars as pl
import pytest
from table_cases import examine, log, prepare

from dnr_jax.data import encoders
from dnr_jax.data.direct import load
from dnr_jax.data.encoders import KNOWN, UNKNOWN
from dnr_jax.data.raw_values import integers_hashed, texts_hashed, two_rows
from dnr_jax.data.table import candidates, coded_candidates, report
from dnr_jax.data.table.requests import encode
from dnr_jax.data.table.settings import TableSettings

ROWS = 50
HASHED = "i_seller=50,i_tags=50,c_page=7"
EXTRA = {
    "i_seller": pl.when(pl.col("item_id") == 105).then(None).otherwise(pl.col("item_id") * 7 - 720),
    "i_tags": pl.concat_list(pl.format("t{}", pl.col("item_id")), pl.lit("all")),
    "c_page": pl.format("page {}", pl.col("request_id") // 9),
    "i_kind": pl.col("item_id") % 3,
}
PAIRS = {"i_seller": 1, "i_tags": 2, "c_page": 1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hashed")
    found = prepare(log(**EXTRA), folder, size=6, history=3, hashed=HASHED)
    found.encoders.save(folder / "encoders")
    return folder / "encoders", found


def slow(value, buckets):
    """Two rows of a value, by Python's integers."""

    def mix(z):
        z = z * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    if value is None:
        return [UNKNOWN, 0]
    digest = hashlib.blake2b(str(value).encode(), digest_size=8).digest()
    own = mix(value % 2**64) if isinstance(value, int) else int.from_bytes(digest, "little")
    first, step = mix(own) % buckets, mix((own + 1) % 2**64) % (buckets - 1)
    return [KNOWN + first, KNOWN + (first + 1 + step) % buckets]


def test_two_rows_are_those_of_a_slow_hash_and_collide_as_said():
    numbers, words = [0, 1, -5, 2**62], ["", "a", "straße", "a" * 99]
    for values, read in ((numbers, integers_hashed), (words, texts_hashed)):
        found = two_rows(*read(values), ROWS)
        assert found.tolist() == [slow(value, ROWS) for value in values]
    assert two_rows(*integers_hashed([7, "7", 7.0, None, 7.5, "x"]), ROWS).tolist() == [
        *[slow(7, ROWS)] * 3,
        *[[UNKNOWN, 0]] * 3,
    ]
    rows = two_rows(*integers_hashed(list(range(3000))), ROWS) - KNOWN
    assert (rows[:, 0] != rows[:, 1]).all()
    assert (np.bincount(rows.ravel(), minlength=ROWS) > 60).all()  # 120 each, expected
    together = (np.sort(rows, 1)[:, None] == np.sort(rows, 1)[None]).all(2).mean()
    assert together == pytest.approx(1 / 3000 + 2 / (ROWS * (ROWS - 1)), rel=0.1)


def test_arrays_hold_two_ids_a_value(prepared):
    _, found = prepared
    spec = found.encoders.spec
    assert spec.item == ("item_id", "i_seller", "i_seller", *["i_tags"] * 4, "i_kind")
    assert (spec.context, spec.sizes["i_seller"]) == (("c_page", "c_page"), ROWS + KNOWN)
    frame = log(**EXTRA)
    items = [None, None, *found.encoders.vocabularies["item_id"].keys.tolist()]
    request = found.splits["train"].batch.request
    for row, number in enumerate(found.splits["train"].request_id.tolist()):
        page = frame.filter(pl.col("request_id") == number)["c_page"][0]
        assert request.context[row].tolist() == slow(page, 7)
        for ids in request.candidates[row, request.where[row]].tolist():
            item = items[ids[0]]
            seller = None if item == 105 else item * 7 - 720
            expected = [*slow(seller, ROWS), *slow(f"t{item}", ROWS), *slow("all", ROWS)]
            assert ids[1:7] == expected


def test_raw_requests_and_tables_of_candidates_get_the_same_ids(prepared):
    folder, _ = prepared
    known = encoders.load(folder)
    some = log(**EXTRA).filter(pl.col("request_id") < 3).drop("label", "position")
    some = some.with_columns(i_seller=pl.col("i_seller") + 10**6)  # not seen in training
    coded = coded_candidates.code(candidates.read(some, known, TableSettings()), known)
    request, _ = coded_candidates.request_arrays(coded, np.arange(3), 6, known)
    raw = [
        {
            "user_id": own["user_id"][0],
            "c_page": own["c_page"][0],
            "items": own.select("item_id", "i_seller", "i_tags", "i_kind").to_dicts(),
        }
        for own in some.partition_by("request_id", maintain_order=True)
    ]
    direct = load(folder, None).arrays(raw, 6)
    checked = encode(known, raw, size=6)
    for part in ("user", "context", "candidates"):
        np.testing.assert_array_equal(direct[part], getattr(request, part))
        np.testing.assert_array_equal(direct[part], getattr(checked.request, part))
    sellers = sum(item["i_seller"] is None for one in raw for item in one["items"])
    assert checked.unknown["item.i_seller"] == sellers > 0


def test_newer_logs_keep_the_hashes_and_the_kind_of_ids(prepared, tmp_path):
    folder, before = prepared
    newer = log(**EXTRA).with_columns(c_page=pl.lit("new"))
    found = prepare(newer, tmp_path, size=6, known=str(folder))
    assert found.encoders.transforms["hashed"] == before.encoders.transforms["hashed"]
    assert found.encoders.spec.item == before.encoders.spec.item
    assert (found.splits["train"].batch.request.context == slow("new", 7)).all()
    text = newer.with_columns(pl.col("i_seller").cast(pl.String))
    with pytest.raises(ValueError, match="column i_seller holds text, but whole numbers when"):
        prepare(text, tmp_path, known=str(folder))


def test_collisions_are_counted_and_said():
    frame = log(**EXTRA | {"c_page": pl.format("page {}", pl.col("request_id"))})
    found = report.facts(examine(frame, hashed="c_page=7,i_tags=1000"), weight_cap=1.0)
    pairs = [tuple(sorted(slow(f"page {n}", 7))) for n in range(40)]
    shared = sum(pairs.count(pair) > 1 for pair in pairs)
    assert found["hashed"]["c_page"] == {"rows": 7, "values": 40, "share_both": shared}
    assert found["hashed"]["i_tags"] == {"rows": 1000, "values": 12, "share_both": 0}
    said = report.findings(found)
    assert any(line.startswith("hashed: 40 values of c_page in 7 rows, two a") for line in said)


@pytest.mark.parametrize(
    ("hashed", "message"),
    [
        ("i_seller", "hashed is 'i_seller': write pairs, as in i_seller=100000"),
        ("i_seller=1", "hashed.i_seller is '1': it must be a number of rows, 2 or more"),
        ("i_sellers=9", "there is no column 'i_sellers'.*i_seller"),
        ("user_id=9", "hashed: user_id is not an id feature; those of this table are i_seller"),
    ],
)
def test_what_cannot_be_hashed_is_named(hashed, message):
    with pytest.raises(ValueError, match=message):
        examine(log(**EXTRA), hashed=hashed)


def test_a_schema_file_may_hash_too(tmp_path):
    (tmp_path / "schema.toml").write_text('[hashed]\ni_seller = 9\nc_page = "8"\n')
    seen = examine(log(**EXTRA), schema=str(tmp_path / "schema.toml"), hashed="c_page=7")
    buckets = {feature.name: feature.buckets for feature in seen.table.schema.features}
    assert buckets == {"i_seller": 9, "i_tags": 0, "c_page": 7, "i_kind": 0}
