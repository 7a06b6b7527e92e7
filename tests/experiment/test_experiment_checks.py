"""Bad input: one clear error each, said before any long work."""

import numpy as np
import polars as pl
import pytest
from recflow_cases import DAYS, write

from configs import recflow
from dnr_jax import experiment
from dnr_jax.retrievers import RETRIEVERS, Entry, Retriever, RetrieverSettings
from dnr_jax.retrievers.retriever import FittedRetriever


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Run a config that must be refused before anything is built; return the error's text."""
    monkeypatch.setattr(experiment, "assemble", None)  # training would fail otherwise

    def check(config, kind=ValueError, prepared=False):
        config = config | {"cache": str(tmp_path / "cache")}
        with pytest.raises(kind) as error:
            experiment.run_all(config, tmp_path / "run")
        assert list((tmp_path / "cache").glob("prepared/*")) == [] or prepared
        return str(error.value)

    return check


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reranker": {"name": "pmr"}}, "config.reranker.name: there is no reranker 'pmr'"),
        ({"reranker": {"name": "pmr"}}, "did you mean 'prm'?"),
        ({"noise": {"name": "bata"}}, "config.noise.name: there is no noise 'bata'"),
        ({"noise": {"name": "learned_mix"}}, "config.noise.name"),
        ({"generator": {"name": "learned_mx"}}, "did you mean 'learned_mix'?"),
        (
            {"generator": {"name": "beta"}},
            "Known: learned_bounded, learned_direct, learned_mix, learned_rate, none",
        ),
        ({"divergence": {"name": "densty"}}, "did you mean 'density'?"),
        ({"candidates": {"name": "retrieved"}}, "did you mean 'retrieved_pool'?"),
        ({"candidates": {"name": "logged"}}, "config.candidates.name (for movielens)"),
        ({"data": {"name": "movielense"}}, "config.data.name: there is no data set 'movielense'"),
        ({"retriever": {"name": "matrix"}}, "matrix_factorization"),
        (
            {"retrievers": {"matrix_factorization": {"loss": "bpq"}}},
            "config.retrievers.matrix_factorization.loss is 'bpq': it must be one of",
        ),
        ({"retriever": {"score": "maxmin"}}, "config.retriever.score is 'maxmin': it must be"),
        ({"candidates": {"sampling": "even"}}, "config.candidates.sampling is 'even': it must be"),
        ({"candidates": {"size": 5}}, "config.candidates.size is 5, config.eval.k is 6"),
        ({"candidates": {"size": 6}}, "more candidates than places in the shown list"),
        (
            {"candidates": {"size": 10**6}},
            "config.candidates.size is 1000000: it must be 2 or more",
        ),
        ({"data": {"history": 10**7}}, "config.data.history is 10000000: it must be 1 or more and"),
        ({"reranker": {"layers": 10**5}}, "config.reranker.layers is 100000: it must be 1 or more"),
        ({"eval": {"k": 0}}, "config.eval.k is 0: it must be 1 or more"),
        ({"train": {"epochs": 0}}, "config.train.epochs is 0: it must be 1 or more"),
        ({"train": {"seeds": 0}}, "config.train.seeds is 0: it must be 1 or more"),
        ({"train": {"lambda_e": -1}}, "config.train.lambda_e is -1: it must be 0 or more"),
        (
            {"train": {"batch_size": 64, "micro_batch": 48}},
            "config.train.micro_batch is 48, which does not divide batch_size 64",
        ),
        ({"train": {"loss": "bse"}}, "config.train.loss is 'bse': it must be one of own, direct"),
        ({"train": {"epochs": 2.5}}, "config.train.epochs is 2.5: it must be of type int"),
        ({"objective": {"lambda_x": float("nan")}}, "config.objective.lambda_x is nan"),
        ({"table": "score,dnr_x"}, "config.table: there is no row 'dnr_x'; did you mean"),
        ({"table": ""}, "name each row to run once"),
        ({"data": {"core": 1000}}, "the 1000-core of 1280 rows is empty"),
        ({"rerankers": {"prm": {"positions": "ranks"}}}, "config.rerankers.prm.positions is"),
        ({"reranker": {"score_entry": "concat"}}, "config.reranker.score_entry is 'concat'"),
        ({"reranker": {"score_place": "soon"}}, "config.reranker.score_place is 'soon'"),
        ({"reranker": {"heads": 3}}, "config.reranker.width is 8, which 3 heads cannot share"),
        ({"noise": {"lambda_c": 1.5}}, "config.noise.lambda_c is 1.5: it must be above 0"),
        ({"retriever": {"cross_fit": 1}}, "config.retriever.cross_fit is 1"),
        ({"divergences": {"density": {"bandwidth": 0.0}}}, "config.divergences.density.bandwidth"),
        ({"seed": 2**31 - 1}, "config.seed is 2147483647: the last train seed, 2147483648"),
    ],
)
def test_a_config_that_cannot_work_is_refused(tiny, refused, changes, expected):
    assert expected in refused(tiny(**changes))


# What no row of the table reads is checked all the same.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rerankers": {"dcdr": {"beam": 0}}}, "config.rerankers.dcdr.beam is 0: it must be 1"),
        ({"rerankers": {"prm": {"beam": 8}}}, "config.rerankers.prm: there is no knob 'beam'"),
        ({"retriever": {"name": "random"}, "retrievers": {"matrix_factorization": {"width": 0}}},
            "config.retrievers.matrix_factorization.width is 0"),
        ({"divergences": {"histogram": {"bins": 0}}}, "config.divergences.histogram.bins is 0"),
        ({"noises": {"beta": {"alpha": -1.0}}}, "config.noises.beta.alpha is -1.0"),
        ({"noise": {"name": "betta"}}, "'betta'; did you mean 'beta'?"),
        ({"generator": {"width": 0}}, "config.generator.width is 0: it must be 1 or more"),
        ({"objective": {"lambda_x": float("inf")}}, "config.objective.lambda_x is inf"),
        ({"train": {"learning_rate_factors": (-1.0,)}}, "config.train.learning_rate_factors is"),
        ({"train": {"learning_rate_factors": ()}}, "config.train.learning_rate_factors is ()"),
        ({"train": {"learning_rate_factors": (1.0, 1.0)}}, "config.train.learning_rate_factors"),
        ({"train": {"epochs": 2**63}}, "config.train.epochs is 9223372036854775808"),
        ({"optim": {"generator": {"learning_rate": float("inf")}}},
            "config.optim.generator.learning_rate is inf"),
        ({"optim": {"reranker": {"b1": 1.0}}}, "config.optim.reranker.b1 is 1.0"),
        ({"optim": {"reranker": {"b2": -0.1}}}, "config.optim.reranker.b2 is -0.1"),
        ({"optim": {"reranker": {"learning_rate": 0.0}}}, "config.optim.reranker.learning_rate"),
        ({"optim": {"reranker": {"clip": 0.0}}}, "config.optim.reranker.clip is 0.0"),
        ({"compute": {"dtype": "float16"}}, "config.compute.dtype is 'float16': it must be one of"),
    ],
)  # fmt: skip
def test_knobs_that_no_row_reads_are_checked_too(tiny, refused, changes, expected):
    assert expected in refused(tiny(table="random", **changes))


def test_a_missing_path_is_named(tiny, refused):
    text = refused(tiny(data={"path": "/no/such/folder"}), FileNotFoundError)
    assert "config.data.path is '/no/such/folder'" in text
    assert "leave it empty to simulate" in text


def test_a_folder_of_other_files_is_named(tiny, refused, tmp_path):
    (tmp_path / "else").mkdir()
    text = refused(tiny(data={"path": str(tmp_path / "else")}), FileNotFoundError)
    assert "holds none of ratings.dat, u.data" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "u.data is empty"),
        ("1\t2\t3\n", "u.data, line 1: found 3 fields in '1\\t2\\t3', expected 4"),
        ("1\t2\tnan\t5\n", "line 1: "),
        ("1\t2\t3\t5\n1\t3\t7\t5\n", "line 2: rating 7.0 is out of range"),
        ("1\tx\t3\t5\n", "line 1: found 'x' as item, expected a number"),
    ],
)
def test_a_broken_file_of_ratings_is_named_with_its_line(
    tiny, refused, tmp_path, content, expected
):
    (tmp_path / "u.data").write_text(content)
    assert expected in refused(tiny(data={"path": str(tmp_path)}))


def test_scores_that_are_not_finite_are_refused(tiny, refused, monkeypatch):
    def fit(key, training, *, progress):
        nothing = np.full(training.counts["item_count"], np.nan)
        return FittedRetriever(lambda queries: np.tile(nothing, (len(queries.user), 1)), {})

    def broken(settings):
        return Retriever(fit)

    broken.__module__ = Retriever.__module__  # its code is a part of what the cache is keyed by
    monkeypatch.setitem(RETRIEVERS, "broken", Entry(RetrieverSettings, broken))
    text = refused(tiny(retriever={"name": "broken", "cross_fit": 0}))
    assert "the retriever gave scores that are not finite" in text


@pytest.fixture
def logged(tmp_path):
    """A RecFlow folder of three tiny days, and the config that reads it."""
    write(tmp_path / "recflow")
    config = recflow.get_config("smoke").to_dict()
    config["data"] |= {"path": str(tmp_path / "recflow")}
    return tmp_path / "recflow", config


def test_a_missing_column_of_recflow_is_named(logged, refused):
    folder, config = logged
    file = folder / "all_stage" / f"{DAYS[1]}.feather"
    pl.read_ipc(file.read_bytes()).drop("rank_index", "like").write_ipc(file)
    text = refused(config)
    assert f"{file} lacks the column(s) ['rank_index', 'like']" in text


def test_a_share_of_a_log_is_no_knob(logged, refused):
    _, config = logged
    config["candidates"] |= {"train_share": 0.5}
    assert "config.candidates.train_share is 0.5, but recflow has logged requests" in refused(
        config
    )


def test_an_empty_file_of_recflow_leaves_too_few_days(logged, refused):
    folder, config = logged
    (folder / "all_stage" / f"{DAYS[1]}.feather").write_bytes(b"")
    text = refused(config)
    assert "2 usable day file(s)" in text
    assert DAYS[1] in text


def test_a_torn_file_of_recflow_is_named(logged, refused):
    folder, config = logged
    file = folder / "all_stage" / f"{DAYS[2]}.feather"
    file.write_bytes(file.read_bytes()[:-20])
    text = refused(config)
    assert f"{file} cannot be read" in text


def test_a_batch_larger_than_the_data_is_refused(logged, refused):
    _, config = logged
    text = refused(config, prepared=True)
    assert "config.train.batch_size is 8, but the training split has only 3 requests" in text


def test_after_a_refusal_the_corrected_config_may_use_the_same_folder(tiny, refused):
    refused(tiny(data={"path": "/no/such/folder"}), FileNotFoundError)
    text = refused(tiny(candidates={"size": 5}))
    assert "config.candidates.size is 5" in text
    assert "another config" not in refused(tiny(data={"core": 1000}))
