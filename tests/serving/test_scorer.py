"""Arrow tables in, ranked Arrow tables out: as the model ranks raw requests, however it is cut."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import dnr_jax
from dnr_jax.ahead import one_ahead
from dnr_jax.data.table.candidates import RANKED
from dnr_jax.serving import Scorer, batches

IDS = ["request_id", "item_id"]
ITEM = ["item_id", "i_brand", "i_tags", "i_price"]


@pytest.fixture(scope="module")
def scorer(packed):
    return Scorer(packed)


def ranked(scorer, frame):
    return pl.DataFrame(pl.from_arrow(scorer(frame.to_arrow())))


def raw(own):
    """Write the candidates of one request as its user would."""
    first = own.row(0, named=True)
    return {
        **{name: first[name] for name in ("user_id", "u_city", "c_weekday", "history")},
        "scores": own["score"].to_list(),
        "items": own.select(ITEM).to_dicts(),
    }


def test_a_table_is_ranked_as_raw_requests_are(scorer, candidates):
    found = ranked(scorer, candidates)
    groups = [own for _, own in candidates.group_by("request_id", maintain_order=True)]
    expected = scorer.model.scores([raw(own) for own in groups])
    for own, scores in zip(groups, expected, strict=True):
        mine = found.filter(pl.col("request_id") == own["request_id"][0])
        order = np.argsort(-scores, kind="stable")
        np.testing.assert_allclose(mine["score"].to_numpy(), scores[order], atol=1e-6)
        assert mine["rank"].to_list() == list(range(1, len(own) + 1))
        gaps = -np.diff(scores[order])
        if (gaps > 1e-5).all():  # the two batches may differ in the last digits
            assert mine["item_id"].to_list() == own["item_id"][order].to_list()


def test_the_schema_is_kept(scorer, candidates):
    found = ranked(scorer, candidates)
    assert dict(found.schema) == {
        "request_id": candidates["request_id"].dtype,
        "item_id": candidates["item_id"].dtype,
        "score": pl.Float32(),
        "rank": pl.Int32(),
        "retriever_score": pl.Float64(),
        "user_id": candidates["user_id"].dtype,
        "timestamp": candidates["timestamp"].dtype,
    }
    given = candidates.select(*IDS, retriever_score="score").sort(IDS)
    assert found.select(given.columns).sort(IDS).equals(given)
    batch = candidates.head(5).to_arrow().combine_chunks().to_batches()[0]
    assert isinstance(scorer(batch), pa.RecordBatch)


def test_the_order_and_the_number_of_requests_do_not_matter(scorer, candidates):
    whole = ranked(scorer, candidates).sort(IDS)
    mixed = ranked(scorer, candidates.sample(fraction=1.0, shuffle=True, seed=1)).sort(IDS)
    parts = [ranked(scorer, own) for _, own in candidates.group_by(pl.col("request_id") % 3 == 0)]
    for other in (mixed, pl.concat(parts).sort(IDS)):
        np.testing.assert_allclose(whole["score"], other["score"], atol=1e-5)


def test_what_a_request_repeats_may_stand_in_any_of_its_rows(scorer, candidates):
    frame = candidates.with_columns(history_time=pl.lit([1, 2, 3]), timestamp=pl.lit(10**9))
    place = pl.int_range(pl.len()).over("request_id")
    one, last = pl.col("request_id") % pl.len().over("request_id"), pl.len().over("request_id") - 1
    once = [  # the histories in one row, the others from one on, or in the last
        *(pl.when(place == one).then(name).alias(name) for name in ("history", "history_time")),
        pl.when(place >= one).then("user_id").alias("user_id"),
        pl.when(place == last).then("u_city").alias("u_city"),
    ]
    sparse = frame.with_columns(once).sample(fraction=1.0, shuffle=True, seed=2)
    whole, given = (scorer.code(scorer.read(one)) for one in (frame, sparse))
    order = given.requests.with_columns(own=pl.int_range(pl.len())).sort("request_id")["own"]
    assert given.requests[order].drop("q").equals(whole.requests.drop("q"))
    past = [made.past.latest(slice(None), 3) for made in (whole, given)]
    assert past[0][1].all()
    assert all((one == other[order]).all() for one, other in zip(*past, strict=True))


def test_each_result_comes_when_the_next_call_was_made():
    made = []

    def calls():
        for number in range(3):
            made.append(number)
            yield number

    seen = [(one, len(made)) for one in one_ahead(calls())]
    assert seen == [(0, 2), (1, 3), (2, 3)]
    assert list(one_ahead([])) == []


def test_lists_longer_than_in_training_are_ranked(scorer, candidates):
    first = candidates["request_id"][0]
    long = candidates.with_columns(request_id=pl.lit(first, pl.Int64)).unique(
        "item_id", keep="first"
    )
    assert len(long) > 64
    both = pl.concat([long, candidates.filter(pl.col("request_id") != first)])
    found = ranked(scorer, both)
    assert found["rank"].max() == len(long)
    assert len(found) == len(both)


def test_rows_are_sorted_by_request_and_score_and_equals_stay_as_they_are():
    random = np.random.default_rng(0)
    q = np.sort(random.integers(5, size=200)).astype(np.uint32)
    some = [-np.float32(3e38), -1.5, -1e-45, -0.0, 0.0, 1e-45, 0.25, 1.5, np.float32(3e38)]
    scores = random.choice(np.array(some, np.float32), size=200)
    found = batches._best_first(q, scores)
    np.testing.assert_array_equal(found, np.lexsort((-scores, q)))


def test_unknown_values_are_counted_and_missing_columns_named(scorer, candidates):
    strange = candidates.drop("u_city", "history").with_columns(
        user_id=pl.lit("nobody"), item_id=pl.col("item_id") + 10**6
    )
    read = scorer.read(strange)
    assert read.missing == ("history", "u_city")
    counts = scorer.score(read).counts
    assert counts["requests"] == counts["unknown user.user_id"] == 40
    assert counts["candidates"] == counts["unknown item.item_id"] == len(strange)
    assert not counts["unknown item.i_brand"]


def test_ids_may_have_another_type_than_in_training(scorer, candidates):
    text = candidates.with_columns(pl.col("item_id").cast(pl.String))
    same, found = ranked(scorer, candidates), ranked(scorer, text)
    assert found["item_id"].dtype == pl.String
    np.testing.assert_allclose(found["score"], same["score"], atol=1e-6)


def test_what_is_no_input_of_the_model_is_left_alone(scorer, candidates):
    noisy = candidates.with_columns(
        label=pl.lit("?"), click=pl.lit(1), rating=pl.lit(2), i_new=pl.lit({"a": 1}), note=pl.lit(0)
    )
    found, expected = ranked(scorer, noisy), ranked(scorer, candidates)
    assert found.drop("label", "click", "rating").equals(expected)


@pytest.mark.parametrize("columns", ["", "user_id=member,exposed=seen,split=score_of"])
def test_columns_with_a_meaning_are_passed_on_as_they_are(packed, candidates, columns):
    random = np.random.default_rng(0)
    row = pl.int_range(pl.len())
    user = "member" if columns else "uid"
    names = ["weight", "propensity", "position", "clicked", "label_buy", user]
    values = {name: random.integers(9, size=len(candidates)) for name in names[:-1]}
    given = candidates.rename({"user_id": user}).with_columns(
        *(pl.Series(name, value) for name, value in values.items()),
        pl.when(row % 3 == 0).then(pl.lit("yes")).alias("seen"),
        pl.lit("test").alias("score_of"),
        pl.lit("a note").alias("note"),
        pl.lit(3).alias("rank"),
    )
    found = ranked(Scorer(packed, columns=columns), given)
    passed = [*names, "timestamp", *(["seen", "score_of"] if columns else [])]
    assert sorted(found.columns) == sorted([*RANKED, *passed])
    assert found.select(*IDS, *passed).sort(IDS).equals(given.select(*IDS, *passed).sort(IDS))


def test_a_column_with_the_name_of_an_answer_s_is_not_passed_on(packed, scorer, candidates):
    given = candidates.rename({"score": "bm25"}).with_columns(score=pl.lit(1.0), rank=pl.lit(2))
    found = ranked(Scorer(packed, columns="score=bm25,label=score,position=rank"), given)
    assert found.equals(ranked(scorer, candidates))


def test_columns_of_other_names(packed, scorer, candidates):
    renamed = candidates.rename({"request_id": "session", "score": "bm25"})
    other = Scorer(packed, columns="request_id=session,score=bm25")
    assert ranked(other, renamed).equals(ranked(scorer, candidates))


def test_a_model_without_scores_needs_none(run, candidates):
    found = ranked(Scorer(run, "plain"), candidates.drop("score"))
    assert found["retriever_score"].null_count() == len(candidates)
    assert found["score"].is_finite().all()


def test_the_first_stage_s_rank_may_stand_for_its_score(run, candidates):
    place = pl.col("score").rank("ordinal", descending=True).over("request_id").alias("rank")
    scorer = Scorer(run, "retriever")
    by_rank = ranked(scorer, candidates.with_columns(place).drop("score"))
    by_score = ranked(scorer, candidates)
    assert by_rank.select(*IDS, "rank").equals(by_score.select(*IDS, "rank"))


def test_it_knows_a_model_that_is_loaded(packed, candidates):
    model = dnr_jax.load(packed)
    assert len(Scorer(model)(candidates.to_arrow())) == len(candidates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("score"), "the table has no score, which this model reads"),
        (lambda f: f.drop("item_id"), "the table has no column item_id"),
        (lambda f: f.with_columns(score=pl.lit(float("inf"))), "row 1: score is inf, expected a"),
        (
            lambda f: f.with_columns(i_price=pl.lit("dear")),
            "i_price is String, which cannot",
        ),
        (lambda f: f.with_columns(item_id=pl.lit(None, pl.Int64)), "row 1: item_id is missing"),
        (lambda f: f.head(0), "has no rows"),
    ],
)
def test_a_bad_table_is_one_clear_error(scorer, candidates, change, message):
    with pytest.raises(ValueError, match=message):
        scorer(change(candidates).to_arrow())


@pytest.mark.parametrize("named", ["score=scoer", "user_id=scoer", "history=scoer"])
def test_a_misspelt_column_is_an_error_and_one_of_training_alone_is_not(packed, candidates, named):
    table = candidates.to_arrow()
    with pytest.raises(ValueError, match="there is no column 'scoer'; did you mean 'score'"):
        Scorer(packed, columns=named)(table)
    training = "label=clicked,position=place,timestamp=at"
    assert len(Scorer(packed, columns=training)(table)) == len(candidates)


def test_a_model_of_another_data_set_says_what_is_possible(packed):
    model = dnr_jax.load(packed)
    other = dnr_jax.Model(model.card | {"data": {"name": "recflow"}}, {}, model.encoders, None)
    with pytest.raises(ValueError, match=r"trained on recflow.* only .* table are fit to score"):
        Scorer(other)


def test_frames_are_scored_in_their_own_order_and_ranked_in_kind(scorer, candidates):
    mixed = candidates.sample(fraction=1.0, shuffle=True, seed=1)
    model, expected = scorer.model, ranked(scorer, mixed)
    found = model.scores(mixed)
    assert found.dtype == np.float32
    joined = mixed.select(IDS).with_columns(mine=found).join(expected, on=IDS)
    assert len(joined) == len(mixed)
    np.testing.assert_array_equal(joined["mine"], joined["score"])
    assert model.rank(mixed).equals(expected)
    table = mixed.to_arrow()
    assert model.rank(table).equals(scorer(table))
    np.testing.assert_array_equal(model.scores(table), found)
    assert isinstance(model.rank(table.to_batches()[0]), pa.RecordBatch)


def test_a_frame_of_pandas_comes_back_as_one(scorer, candidates):
    pytest.importorskip("pandas")
    frame = candidates.drop("history", "i_tags").to_pandas()
    found = scorer.model.rank(frame)
    assert type(found) is type(frame)
    assert found.to_dict("list") == scorer.model.rank(pl.from_pandas(frame)).to_dict(
        as_series=False
    )
    assert len(scorer.model.scores(frame)) == len(frame)


def test_a_fault_of_a_frame_is_one_clear_error(scorer, candidates):
    with pytest.raises(ValueError, match="row 1: score is inf, expected a finite score"):
        scorer.model.scores(candidates.with_columns(score=pl.lit(float("inf"))))
    with pytest.raises(ValueError, match="the table has no score, which this model reads"):
        scorer.model.rank(candidates.drop("score"))
