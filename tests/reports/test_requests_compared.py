"""Two rows compared request by request, against values made by hand."""

import numpy as np
import polars as pl
import pytest

from dnr_jax import reports
from dnr_jax.io import per_request, run_folder

VALUES = {  # by model, seed and request; NaN = excluded
    "prm": {
        0: {7: 0.2, 8: 0.5, 9: 0.1},
        1: {7: 0.4, 8: 0.7, 9: np.nan},
        2: {7: 0.3, 8: 0.6, 9: 0.2},
    },
    "random": {0: {7: 0.9, 8: 0.6, 9: np.nan}},
}


@pytest.fixture
def folder(make_run):
    rows = [(m, s, r, v) for m, seeds in VALUES.items() for s in seeds for r, v in seeds[s].items()]
    model, seed, request, value = zip(*reversed(rows), strict=True)
    path = make_run()
    columns = {
        "model": np.array(model, object),
        "seed": np.array(seed, np.int32),
        "request_id": np.array(request, np.int64),
        "n@6": np.array(value, np.float32),
        "auc": np.array(value, np.float32) / 2,
    }
    per_request.write(path / run_folder.PER_REQUEST, columns)
    return path


def test_the_greatest_win_comes_first(folder):
    found = reports.compare_requests(folder, "prm", "random")
    assert found.columns == ["request_id", "prm", "random", "difference"]
    assert found["request_id"].to_list() == [8, 7]  # 9 has no value in one of them
    np.testing.assert_allclose(found["difference"], [0.0, -0.6], atol=1e-6)  # means of three seeds
    np.testing.assert_allclose(found["prm"], [0.6, 0.3], atol=1e-6)
    other = reports.compare_requests(folder, "prm", "random", "auc")
    np.testing.assert_allclose(other["difference"], [0.0, -0.3], atol=1e-6)


def test_wrong_names_are_refused(folder):
    with pytest.raises(ValueError, match="there is no row 'prn'; did you mean 'prm'"):
        reports.compare_requests(folder, "prn", "random")
    with pytest.raises(ValueError, match="has no column 'map'"):
        reports.compare_requests(folder, "prm", "random", "map")


RANKED = pl.DataFrame(
    {
        "request_id": [1, 1, 1, 2],
        "item_id": ["a", "b", "c", "d"],
        "label": [0.0, None, 1.0, 0.0],
        "retriever_rank": [1, 2, 3, 1],
        "dnr_b_rank": [2, 3, 1, 1],
    }
)


def test_lists_stand_side_by_side():
    found = reports.side_by_side(RANKED, 1, ("retriever", "dnr_b"), 2)
    assert found.rows() == [(1, "a", 0.0, "c", 1.0), (2, "b", None, "a", 0.0)]
    assert found.columns == ["rank", "retriever", "retriever_label", "dnr_b", "dnr_b_label"]
    assert len(reports.side_by_side(RANKED, 2, ("retriever",), 6)) == 1
    with pytest.raises(ValueError, match="request 3 is not among"):
        reports.side_by_side(RANKED, 3, ("retriever",), 2)
    with pytest.raises(ValueError, match="there is no model 'dnr_g'; did you mean 'dnr_b'"):
        reports.side_by_side(RANKED, 1, ("dnr_g",), 2)
