"""Scores from ranks: closed values, calibration, probing, tiers."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnr_jax.data.recflow import scores
from dnr_jax.data.recflow.settings import RecFlowSettings, label_weights, unexposed_weight


def test_log_rank_has_its_published_values():
    r = np.array([1, 10, 65, 310, 1750, 5500])
    expected = [1.00, 0.744, 0.536, 0.362, 0.169, 0.042]
    np.testing.assert_allclose(scores.log_rank(r), expected, atol=6e-4)


def test_closed_values_of_the_other_formulas():
    np.testing.assert_allclose(scores.linear(np.array([1, 500, 8000])), [1, 0, 0])
    np.testing.assert_allclose(scores.dcg(np.array([1, 3])), [1, 0.5])
    np.testing.assert_allclose(scores.exponential(np.array([1, 51]), 50.0), [1, np.exp(-1)])
    x = scores.quantile(np.array([7.0, 3, 3, 90, 5]), np.array([0, 0, 0, 0, 1]))
    np.testing.assert_allclose(x, [1 - 2.5 / 4, 0.75, 0.75, 1 - 3.5 / 4, 0.5])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(1, 8000), min_size=1, max_size=20), st.sampled_from(list(scores.FORMULAS))
)
def test_every_score_lies_in_the_unit_interval_and_falls_with_rank(ranks, name):
    r = np.sort(np.array(ranks))
    table = scores.calibrate(np.full(500, 9), np.linspace(8, 1, 500))
    x = scores.score(name, r, request=np.zeros(len(r), int), tau=50.0, table=table)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert ((x >= 0) & (x <= 1)).all()
    assert (np.diff(x) <= 0).all()


def test_calibration_recovers_a_falling_curve_and_stays_monotone():
    rng = np.random.default_rng(0)
    rate = 0.7 / (1 + np.arange(500) / 60)
    shown = np.full(500, 400)
    table = scores.calibrate(shown, rng.binomial(shown, rate).astype(float))
    assert table.max() == 1
    assert (np.diff(table) <= 0).all()
    np.testing.assert_allclose(table[5:500] * 0.68, rate[5:], atol=0.06)


def test_calibration_without_any_view_says_so():
    with pytest.raises(ValueError, match="choose score='log_rank'"):
        scores.calibrate(np.ones(500), np.zeros(500))


def _frame(index, **flags):
    size = len(index)
    names = [flag for names, *_ in scores.TIERS for flag in names]
    columns = {name: flags.get(name, [False] * size) for name in names}
    index = pl.Series(index, dtype=pl.Float64)
    return pl.DataFrame(columns).with_columns(rank_index=index, rerank_index=index)


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("missing", [-1.0, 0.0, 9999.0, None])
def test_probe_finds_the_base_whatever_the_sentinel(base, missing):
    index = [base, base + 1, base + 9, base + 60, missing]
    top, other = [True] * 3 + [False] * 2, [False] * 3 + [True, False]
    frame = _frame(index, rank_pos=top, rerank_neg=other, coarse_neg=[False] * 4 + [True])
    assert scores.probe_base(frame, "rank_index") == base
    rank = frame.select(scores.valid_rank("rank_index", base)).to_series().to_list()
    assert rank == [1, 2, 10, 61, None]
    shares = scores.valid_fraction(frame, base)
    assert (shares["rank_pos"], shares["rerank_neg"], shares["coarse_neg"]) == (1, 1, 0)
    assert shares["prerank_neg"] is None


def test_a_few_sentinels_at_the_top_do_not_hide_the_base():
    frame = _frame([0.0, 0.0, 1.0, 10.0], rank_pos=[True] * 4)
    assert scores.probe_base(frame, "rank_index") == 1


def test_probe_gives_up_without_usable_top_rows():
    frame = _frame([7.0, None], rank_pos=[True, False], rerank_pos=[False, True])
    assert scores.probe_base(frame, "rank_index") is None
    assert scores.valid_fraction(frame, None)["rank_pos"] == 0


@pytest.mark.parametrize("jitter", [False, True])
def test_tiers_follow_the_stage_and_do_not_betray_exposure(jitter):
    flags = ["rank_pos", "rerank_pos", "rerank_neg", "realshow", "rank_neg", "coarse_neg"]
    flags.append("prerank_neg")
    rows = {flag: [flag == other for other in flags] for flag in flags}
    frame = _frame([None] * 7, **rows).with_columns(u=pl.lit(0.5))
    r = frame.select(scores.tier_rank(pl.col("u"), jitter=jitter)).to_series().to_list()
    middle = [5.5, 65.5, 65.5, 65.5, 310.5, 1750.5, 5500.5] if jitter else None
    assert r == (middle or [5, 65, 65, 65, 310, 1750, 5500])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": "softmax"}, "log_rank"),
        ({"pool": "all"}, "strict"),
        ({"period": "second"}, "first"),
        ({"history": 51}, "1 or more and at most 50"),
        ({"user_share": 0.0}, "user_share"),
        ({"user_share": 0.7}, "it must be 1/n, the nearest is 1"),
        ({"days": 2}, "days"),
        ({"days": -1}, "days"),
        ({"tau": float("inf")}, "tau"),
        ({"label": "clicks"}, "effective_view"),
        ({"label": "like:0"}, "all be 0"),
        ({"label": "like:x"}, "not a number"),
        ({"unexposed": "drop"}, "mask"),
        ({"unexposed": "weight:"}, "not a number"),
        ({"unexposed": "mask:0.3"}, "only weight is followed by a number"),
    ],
)
def test_settings_out_of_range_name_what_is_allowed(change, said):
    with pytest.raises(ValueError, match=said):
        RecFlowSettings(**change)


def test_policies_are_read():
    assert [unexposed_weight(p) for p in ("zero", "mask", "weight:0.3")] == [1.0, 0.0, 0.3]
    assert label_weights("effective_view, like:0.5") == {"effective_view": 1.0, "like": 0.5}
    assert label_weights("graded") == {}
