"""The simulator writes files of MovieLens-1M's schema and knows their truth."""

from __future__ import annotations

import numpy as np
import pytest

from dnr_jax.data.movielens import reader, simulator
from dnr_jax.data.movielens.settings import MovieLensSettings, MovieLensSimulation
from dnr_jax.data.movielens.truth import truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "world"
    simulator.simulate(path, MovieLensSimulation(users=200, movies=300, seed=1))
    return path


def table(path):
    return [line.split("::") for line in path.read_bytes().decode("latin-1").splitlines()]


def test_files_have_the_schema_of_the_original(folder):
    ratings, users, movies = (table(folder / f) for f in ("ratings.dat", "users.dat", "movies.dat"))
    assert {len(r) for r in ratings} == {4}
    assert {len(r) for r in users} == {5}
    assert {len(r) for r in movies} == {3}
    assert {r[2] for r in ratings} == {"1", "2", "3", "4", "5"}
    assert {r[1] for r in ratings} <= {m[0] for m in movies}
    assert [u[0] for u in users] == [str(n) for n in range(1, 201)]
    assert any("-" in u[4] for u in users)
    assert any(u[4].startswith("0") for u in users)
    assert any(max(map(ord, m[1])) > 127 for m in movies)
    assert max(int(m[0]) for m in movies) > 300  # gaps


def test_users_rate_many_items_once_in_bursts(folder):
    found = reader.read(folder, positive_rating=4)
    assert found.report["repeated_pairs_dropped"] == 0
    assert np.bincount(found.user)[1:].min() >= 20
    same_user = found.user[1:] == found.user[:-1]
    ties = (found.time[1:] == found.time[:-1])[same_user].mean()
    assert 0.15 < ties < 0.25
    assert 0.4 < found.label.mean() < 0.75


def test_truth_is_the_probability_of_a_positive_rating(folder):
    for threshold in (3, 4):
        found = reader.read(folder, positive_rating=threshold)
        known = truth(folder, MovieLensSettings(positive_rating=threshold))
        expected = known(found.user, found.item)
        assert expected.dtype == np.float32
        # The sum of independent labels is within four standard deviations, in every bin.
        for low in np.arange(0, 1, 0.2):
            own = (expected >= low) & (expected < low + 0.2)
            spread = 4 * np.sqrt((expected[own] * (1 - expected[own])).sum()) + 1e-3
            assert abs(found.label[own].sum() - expected[own].sum()) <= spread


def test_truth_broadcasts_and_is_absent_for_real_data(folder, tmp_path):
    known = truth(folder, MovieLensSettings(positive_rating=4))
    items = np.array([[int(m[0]) for m in table(folder / "movies.dat")[:3]]])
    assert known(np.array([[1], [2]]), items).shape == (2, 3)
    assert truth(tmp_path, MovieLensSettings()) is None


def test_same_seed_same_files_other_seed_others(folder, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        settings = MovieLensSimulation(users=200, movies=300, seed=seed)
        simulator.simulate(tmp_path / name, settings)
    ratings = [(p / "ratings.dat").read_bytes() for p in (folder, tmp_path / "a", tmp_path / "b")]
    assert ratings[0] == ratings[1] != ratings[2]
    assert not list(tmp_path.glob(".*"))  # nothing temporary is left


def test_bad_sizes_and_old_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="users is 0: it must be 1 or more"):
        MovieLensSimulation(users=0)
    with pytest.raises(ValueError, match="movies is 39: it must be 40 or more"):
        MovieLensSimulation(movies=39)
    with pytest.raises(FileExistsError, match="delete it"):
        simulator.simulate(tmp_path, MovieLensSimulation(users=5))


def test_a_truth_of_another_kind_is_named(tmp_path):
    file = tmp_path / "truth.npz"
    for save in (lambda: np.savez(file, users=np.arange(3)), lambda: file.write_bytes(b"PK\3\4")):
        save()
        with pytest.raises(ValueError, match=r"truth\.npz is not the truth of a simulation"):
            truth(tmp_path, MovieLensSettings())
