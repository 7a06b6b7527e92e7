import json

import numpy as np
import pytest
from matplotlib.image import imread

from dnr_jax.io import row_files, run_folder
from dnr_jax.reports import panels, plots

LABELS = {"prm": "PRM", "dnr_b": "DNR-B", "absent": "never run"}


def panel(figure, title):
    return next(axis for axis in figure.axes if axis.get_title() == title)


@pytest.fixture
def folder(make_run):
    return make_run()


def test_every_plot_is_drawn(folder):
    paths = plots.save(folder, plots.draw(folder, LABELS))
    names = ["training", "score_noise", "generated_scores", "reliability"]
    assert [p.stem for p in paths] == names
    for path in paths:
        image = imread(path)[::3, ::3, :3]
        assert min(image.shape[:2]) > 100
        assert image.std() > 0.05
        assert len(np.unique((image.reshape(-1, 3) * 15).astype(int), axis=0)) > 8


def test_training_curves_are_means_and_bands(folder):
    curves = plots._read_curves(folder, LABELS)
    assert list(curves) == ["PRM", "DNR-B"]
    figure = plots.training(curves)
    assert [a.get_title() for a in figure.axes] == [
        "valid n@6",
        "loss adv",
        "loss direct",
        "loss z",
    ]
    axis = panel(figure, "loss direct")
    line = axis.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 9))
    np.testing.assert_allclose(line.get_ydata(), np.exp(-np.arange(1, 9) / 3) + 0.02)
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(np.exp(-1 / 3) + 0.02 + 0.02)
    # a term that starts with the second phase, and only in one row
    assert len(panel(figure, "loss adv").lines) == 1
    np.testing.assert_array_equal(panel(figure, "loss adv").lines[0].get_xdata(), np.arange(5, 9))


def test_speed_is_validation_against_epochs_and_against_wall_time(folder):
    with run_folder.open_run(folder, json.loads((folder / "config.json").read_text())) as run:
        run.append_timings({"row": "prm", "epoch": 1, "seconds": 99.0})  # killed and run again
        run.append_timings(*({"row": "prm", "epoch": n, "seconds": 2.5} for n in range(1, 9)))
        run.append_timings({"row": "prm", "scoring_seconds": 7.0}, {"row": "prm", "epoch": 8})
        # a kill between a checkpoint and the record of its time has lost epoch 3
        lost = ({"row": "dnr_b", "epoch": n, "seconds": 1.0} for n in range(1, 9) if n != 3)
        run.append_timings(*lost)
    seconds = plots._read_seconds(folder, LABELS)
    by_epoch, by_time = plots.speed(plots._read_curves(folder, LABELS), seconds).axes
    expected = 100 * (0.5 - (np.exp(-np.arange(1, 9) / 3) + 0.02) / 3)
    for axis, places in ((by_epoch, np.arange(1, 9)), (by_time, 2.5 * np.arange(1, 9))):
        (line,) = axis.lines  # that of the other row is not known
        np.testing.assert_allclose(line.get_xdata(), places)
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert plots.speed(plots._read_curves(folder, LABELS), {}) is None
    assert plots.speed(plots._read_curves(folder, LABELS), {"PRM": {1: 2.5}}) is None


def test_a_record_that_is_no_epoch_s_is_not_drawn(folder):
    curves = plots._read_curves(folder, LABELS)
    file = folder / run_folder.METRICS
    foreign = json.dumps({"row": "prm", "seed": 0, "epoch": 1, "rows": 7})
    file.write_text(f"{foreign}\n{file.read_text()}")
    assert plots._read_curves(folder, LABELS) == curves


def test_legend_names_each_row_once(folder):
    figure = plots.training(plots._read_curves(folder, LABELS))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["PRM", "DNR-B"]


def test_a_legend_of_forty_rows_stays_on_the_page(folder):
    sample = dict(np.load(folder / "analysis" / "prm.npz"))
    names = [f"DNR-R (resampled) on GRU4Rec, conditional L_x {n}" for n in range(40)]
    figure = plots.score_noise(dict.fromkeys(names, sample))
    figure.draw_without_rendering()
    legend, page = figure.legends[0].get_window_extent(), figure.bbox
    assert len(figure.legends[0].get_texts()) == 41
    assert page.x0 <= legend.x0 < legend.x1 <= page.x1
    assert page.y0 <= legend.y0
    assert all(axis.get_window_extent().height > 0.15 * page.height for axis in figure.axes)


def test_noise_densities(folder):
    samples = plots._read_samples(folder, LABELS)
    figure = plots.score_noise(samples)
    axis = panel(figure, "positives (z = 1)")
    density, edges, _ = axis.patches[0].get_data()
    sample = samples["PRM"]
    noise = 1 - sample["scores"][sample["labels"] == 1]
    assert (density * np.diff(edges)).sum() == pytest.approx(1)
    np.testing.assert_allclose(
        density, np.histogram(noise, bins=plots.BINS, range=(0, 1), density=True)[0]
    )
    assert [p.get_label() for p in axis.patches] == ["retriever scores (before)", "PRM", "DNR-B"]


def test_generated_scores_only_of_rows_with_a_generator(folder):
    figure = plots.generated_scores(plots._read_samples(folder, LABELS))
    titles = [a.get_title() for a in figure.axes]
    assert titles == ["DNR-B\nnegatives (z = 0)", "DNR-B\npositives (z = 1)"]
    assert [p.get_label() for p in figure.axes[0].patches] == ["observed", *plots.PHASES.values()]


def test_reliability_bins_hold_equal_shares_in_order_of_probability():
    probabilities = np.random.default_rng(0).permutation(np.linspace(0, 1, 100))
    mean, rate = plots.reliability_bins(probabilities, (probabilities > 0.25).astype(np.float32))
    np.testing.assert_allclose(mean, np.sort(probabilities).reshape(10, 10).mean(1), rtol=1e-6)
    np.testing.assert_allclose(rate, [0, 0, 0.5] + [1] * 7)
    mean, rate = plots.reliability_bins(np.array([0.9, 0.1]), np.array([1.0, 0.0]))
    np.testing.assert_allclose([mean, rate], [[0.1, 0.9], [0.0, 1.0]])


def test_nothing_to_draw(tmp_path):
    assert plots.draw(tmp_path, LABELS) == {}
    assert plots.save(tmp_path, {}) == []
    assert plots.training({"a": [{"row": "a", "seed": 0, "epoch": 1}]}) is None


def test_an_empty_sample_is_not_drawn(make_run):
    folder = make_run()
    empty = {name: np.zeros(0, np.float32) for name in ("scores", "labels", "probabilities")}
    row_files.write_analysis(folder, "prm", empty)
    assert list(plots._read_samples(folder, LABELS)) == ["DNR-B"]
    zero = {"PRM": {name: np.zeros(9, np.float32) for name in empty}}
    assert plots.reliability(zero).axes[0].get_xlim() == (0, 1)


def test_a_row_whose_logits_are_no_log_odds_has_no_probabilities_to_draw(make_run):
    folder = make_run()
    row_files.write_analysis(folder, "prm", dict.fromkeys(row_files.DRAWN, np.zeros(9, np.float32)))
    figures = plots.draw(folder, LABELS)
    titles = [text for axis in figures["reliability"].axes for text in [axis.get_title(loc="left")]]
    assert not any("PRM" in title for title in titles)
    assert len(titles) == 1


def test_a_kill_while_a_plot_is_written_leaves_the_old_one(folder, monkeypatch):
    figures = plots.draw(folder, LABELS)
    (path, *_) = plots.save(folder, figures)
    whole = path.read_bytes()

    def die(figure, file, **_):
        file.write(whole[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(plots.Figure, "savefig", die)
    with pytest.raises(KeyboardInterrupt):
        plots.save(folder, figures)
    assert path.read_bytes() == whole
    assert {p.suffix for p in path.parent.iterdir()} == {".png"}


def test_sample_without_positives(folder):
    sample = plots._read_samples(folder, LABELS)["DNR-B"]
    sample["labels"] = np.zeros_like(sample["labels"])
    assert plots.score_noise({"DNR-B": sample}) is not None
    assert plots.generated_scores({"DNR-B": sample}) is not None


def test_rows_stay_distinct_after_the_colours_run_out():
    styles = [tuple(panels.style(n).values()) for n in range(20)]
    assert len(set(styles)) == 20


def test_of_many_rows_the_best_on_validation_are_told_apart_and_the_others_are_grey(folder):
    curves = {
        f"row {n}": [
            {"seed": seed, "epoch": epoch, "valid n@6": n * (2 - epoch) + 0.1 * seed, "loss": 1.0}
            for seed in (0, 1)
            for epoch in (1, 2)
        ]
        for n in range(20)
    }
    figure = plots.training(curves)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["other rows", *(f"row {n}" for n in range(6, 20))]
    lines = panel(figure, "valid n@6").lines
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert looks[:6] == [(panels.GREY, "-")] * 6
    assert len(set(looks[6:])) == 14
    assert len(panel(figure, "valid n@6").collections) == 14  # bands
    few = plots.training(dict(list(curves.items())[:3]))
    assert [text.get_text() for text in few.legends[0].get_texts()] == list(curves)[:3]


def test_sensitivity_is_the_mean_over_seeds_at_each_value():
    sweeps = {"lambda_m": {0.5: [20.0, 22.0], 0.1: [18.0]}, "lambda_e": {0.0: [19.0], 5.0: [20.0]}}
    figure = plots.sensitivity(sweeps)
    assert [a.get_xlabel() for a in figure.axes] == ["lambda_m", "lambda_e"]
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [0.1, 0.5]
    assert line.get_ydata().tolist() == [18.0, 21.0]
    assert plots.sensitivity({}) is None


def test_sweeps_are_read_from_the_rows_that_are_points(folder):
    path = folder / "results.json"
    content = json.loads(path.read_text())
    for row in content["rows"]:
        if row["model"] == "prm":
            row["sweep"] = {"knob": "lambda_c", "value": 0.4}
    path.write_text(json.dumps(content))
    found = plots._read_sweeps(folder)
    assert list(found) == ["lambda_c"]
    np.testing.assert_allclose(found["lambda_c"][0.4], [40.0, 44.0, 48.0])


def test_trials_that_were_not_chosen_and_earlier_stages_are_not_drawn(folder):
    path = folder / "metrics.jsonl"
    extra = {"row": "prm", "label": "PRM", "seed": 0, "epoch": 1, "loss_direct": 99.0}
    with path.open("a") as file:
        file.write(json.dumps(extra | {"learning_rate_factor": 3.0}) + "\n")
        file.write(json.dumps(extra | {"stage": "evaluator"}) + "\n")
    curves = plots._read_curves(folder, LABELS)
    assert max(record["loss_direct"] for record in curves["PRM"]) < 99
