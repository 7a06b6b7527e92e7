"""Raw requests of interactions data become the arrays that were prepared of the same lists."""

import dataclasses

import numpy as np
import pytest

from dnr_jax.data import DATASETS, CandidateSettings, candidates, encoders, requests, store
from dnr_jax.data import lists as lists_
from dnr_jax.data.candidates import CandidateRule
from dnr_jax.data.movielens import read
from dnr_jax.data.movielens.settings import MovieLensSettings, MovieLensSimulation
from dnr_jax.data.movielens.simulator import simulate

SLATE, HISTORY, SIZE = 4, 12, 78


@pytest.fixture(scope="module")
def interactions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movielens") / "sim"
    simulate(folder, MovieLensSimulation(users=50, movies=80, seed=2))
    ratings = read(folder, MovieLensSettings(core=5))
    ratings.user_features["gender"].pop(int(ratings.user[0]))  # not all is known of everybody
    return ratings


@pytest.fixture(scope="module")
def prepared(interactions, tmp_path_factory):
    made = lists_.build(interactions, slate=SLATE, history=HISTORY)
    shape = (len(made.catalogue.user_ids), len(made.catalogue.item_ids))
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def build(writer):
        candidates.build(
            writer,
            made,
            lambda users, numbers: scores[users],
            CandidateRule(CandidateSettings(name="retrieved_pool", size=SIZE), "minmax", 0),
            item_vectors=lists_.item_vectors(made, width=2, seed=0),
            truth=None,
            report={},
            progress=False,
        )

    return store.prepare(tmp_path_factory.mktemp("cache"), {}, build)


def raw_requests(interactions, prepared, split):
    """Write the requests of a split as its user would: raw ids, all that was met before."""
    names, wanted = prepared.encoders.vocabularies["item_id"].keys, prepared.splits[split]
    starts = []  # of every list, in order of the users
    for user in np.unique(interactions.user):
        own = np.flatnonzero(interactions.user == user)
        if len(own) >= 3 * SLATE:
            starts += [(own, n) for n in range(0, SLATE * (len(own) // SLATE), SLATE)]
    made = []
    for row, number in enumerate(wanted.request_id.tolist()):
        own, start = starts[number]
        before, ids = own[:start], wanted.batch.request.candidates[row, :, 0]
        made.append(
            {
                "user": int(interactions.user[own[0]]),
                "items": [int(names[i - 2]) for i in ids if i],
                "history": [
                    [int(interactions.item[n]), bool(interactions.label[n])] for n in before
                ],
            }
        )
    return made


@pytest.mark.parametrize("split", store.SPLITS)
def test_raw_requests_give_the_prepared_arrays(interactions, prepared, split):
    raw = raw_requests(interactions, prepared, split)
    encoded = DATASETS["movielens"].encode(prepared.encoders, raw)
    expected = prepared.splits[split].batch.request
    for field in dataclasses.fields(expected):
        found, wanted = (getattr(r, field.name) for r in (encoded.request, expected))
        assert (found is None) == (wanted is None), field.name
        np.testing.assert_array_equal(found, wanted, err_msg=field.name)
        assert found is None or found.dtype == wanted.dtype, field.name
    assert not np.asarray(expected.where).all()  # padding is made as well
    genderless = prepared.spec.user.index("gender")
    count = (expected.user[:, genderless] == 1).sum()
    assert encoded.unknown == ({"user.gender": count} if count else {})


def test_encoders_of_a_run_folder_serve_as_well(interactions, prepared, tmp_path):
    prepared.encoders.save(tmp_path / "run" / "encoders")
    raw = raw_requests(interactions, prepared, "test")[:3]
    first, second = (
        requests.encode(e, raw).request.candidates
        for e in (prepared.encoders, encoders.load(tmp_path / "run" / "encoders"))
    )
    np.testing.assert_array_equal(first, second)


def test_who_and_what_was_never_seen_is_unknown_and_counted(interactions, prepared):
    item = int(interactions.item[0])
    raw = [
        {"user": 10**6, "items": [item, 10**7], "history": [[10**7, True], [item, False]]},
        {"user": None, "items": np.array([item, 2**63 - 1])},
        {"items": (item, 2**64)},
    ]
    request, unknown, dropped = requests.encode(prepared.encoders, raw, size=4)
    np.testing.assert_array_equal(request.user, np.ones_like(request.user))
    np.testing.assert_array_equal(request.candidates[:, 1], np.ones((3, 2)))
    np.testing.assert_array_equal(request.where, [[True, True, False, False]] * 3)
    np.testing.assert_array_equal(request.history[0, -2:, 1], [3, 2])
    assert request.history_where.sum(1).tolist() == [2, 0, 0]
    assert unknown["user.user_id"] == unknown["item.item_id"] == 3
    assert unknown["history.item_id"] == 1
    assert dropped == 0
    assert requests.encode(prepared.encoders, []).request.where.shape == (0, SIZE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": []}, "request 0 has 0 items: it must have 1 to 78"),
        ({"items": list(range(79))}, "request 0 has 79 items"),
        ({"items": "abc"}, "request 0: items is 'abc': it must be a list"),
        ({"items": [1, "x"]}, "request 0: an item is 'x': it must be an integer"),
        ({"user": "u7"}, "request 0: user is 'u7': it must be an integer"),
        ({"history": ["x"]}, "a history item is 'x': it must be an integer"),
        ({"history": [[3]]}, r"request 0 has \[3\] in its history: it must be \[item, liked\]"),
        ({"history": [[3, 4.5]]}, r"it must be \[item, liked\]"),
        ({"item": [1]}, "there is no field 'item'; did you mean 'items'"),
    ],
)
def test_misshapen_requests_are_named(prepared, change, said):
    with pytest.raises(ValueError, match=said):
        requests.encode(prepared.encoders, [{"user": 1, "items": [1]} | change])


def test_what_is_no_request_is_named(prepared):
    with pytest.raises(ValueError, match="request 0 has no 'items'"):
        requests.encode(prepared.encoders, [{"user": 1}])
    with pytest.raises(ValueError, match="request 0 is a list: it must be a mapping"):
        requests.encode(prepared.encoders, [[1]])
