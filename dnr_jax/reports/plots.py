"""Plots of a run folder: training curves, score noise, generated scores, reliability.

The last three read `analysis/<row>.npz`: `scores` and `labels`, all `float32 [M]` over a sample of
judged test candidates, `probabilities` where the logits are log-odds, and `generated_phase1` and
`generated_phase2` where the row has such a generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dnr_jax import durable, json_files
from dnr_jax.io import row_files, run_folder
from dnr_jax.reports.panels import COLOURS, DPI, GREY, OTHERS, finish, grid, headline, style, styles

BINS = 25
RELIABILITY_BINS = 10
CLASSES = {"negatives (z = 0)": False, "positives (z = 1)": True}
PHASES = {"generated_phase1": "heuristic generator", "generated_phase2": "learned generator"}
RATE = "learning_rate_factor"
Records = list[dict[str, Any]]
Samples = dict[str, np.ndarray]
Seconds = dict[int, float]


def draw(folder: Path, labels: Mapping[str, str]) -> dict[str, Figure]:
    """Draw every plot that the run has data for; return them by name.

    Args:
      folder: the run folder.
      labels: names for readers, by row, in table order; other rows are not drawn.
    """
    samples, curves = _read_samples(folder, labels), _read_curves(folder, labels)
    others = {label for label, own in _styles(curves).items() if own is OTHERS}
    judged = {label: sample for label, sample in samples.items() if "probabilities" in sample}
    figures = {
        "training": training(curves),
        "speed": speed(curves, _read_seconds(folder, labels)),
        "score_noise": score_noise({n: s for n, s in judged.items() if n not in others}),
        "generated_scores": generated_scores(samples),
        "reliability": reliability(judged),
        "sensitivity": sensitivity(_read_sweeps(folder)),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def save(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures to `plots/<name>.png`, each in one step, and return the files."""
    paths = [folder / run_folder.PLOTS / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        with durable.replacing(path) as file:
            figure.savefig(file, format="png", dpi=DPI)
    return paths


def training(curves: Mapping[str, Records]) -> Figure | None:
    """Draw validation and every loss term over epochs: mean and standard deviation over seeds.

    Args:
      curves: records of `metrics.jsonl` by row label; every number in them but `seed` and
        `epoch` is a term.
    """
    records = [record for group in curves.values() for record in group]
    terms = {n for record in records for n, v in record.items() if isinstance(v, int | float)}
    order = sorted(terms - {"seed", "epoch", RATE}, key=lambda n: (not n.startswith("valid"), n))
    if not order:
        return None
    figure, axes = grid(len(order), columns=3)
    chosen = _styles(curves)
    for axis, term in zip(axes, order, strict=True):
        for label, group in curves.items():
            own = chosen[label]
            _curve(axis, group, term, band=own is not OTHERS, **own)
        headline(axis, term.replace("_", " "))
        axis.set(xlabel="epoch")
        axis.locator_params(axis="x", integer=True)
    return finish(figure, "Training curves (band: one standard deviation over seeds)")


def speed(curves: Mapping[str, Records], seconds: Mapping[str, Seconds]) -> Figure | None:
    """Draw validation against epochs and against wall time, which tells faster from better.

    Args:
      curves: see `training`; the term of validation begins with "valid".
      seconds: wall time of each epoch, by row label. The first includes the wait for compilation;
        each covers all seeds and trials of a row, which train side by side. A row is not drawn if
        the time of an epoch was lost in a kill.
    """
    timed = {n: group for n, group in curves.items() if _epochs(group) <= seconds.get(n, {}).keys()}
    if not timed:
        return None
    figure, axes = grid(2, columns=2)
    chosen = _styles(timed)
    for label, group in timed.items():
        term, by_epoch = _validation(group)
        epochs, mean = list(by_epoch), [100 * value for value in by_epoch.values()]
        reached = np.cumsum([seconds[label][epoch] for epoch in epochs]).tolist()
        for axis, places in zip(axes, (epochs, reached), strict=True):
            axis.plot(places, mean, **chosen[label])
        axes[0].set(xlabel="epoch", ylabel=f"{term}, percent")
    axes[1].set(xlabel="seconds of training, all seeds and trials")
    return finish(figure, "Faster, or better?")


def _epochs(group: Records) -> set[int]:
    return {record["epoch"] for record in group}


def _validation(group: Records) -> tuple[str, dict[int, float]]:
    """Return the name of validation's metric, and its mean over seeds by epoch."""
    term = next(name for name in group[0] if name.startswith("valid"))
    epochs = sorted(_epochs(group))
    of = {epoch: [r[term] for r in group if r["epoch"] == epoch] for epoch in epochs}
    return term, {epoch: float(np.mean(values)) for epoch, values in of.items()}


def _styles(curves: Mapping[str, Records]) -> dict[str, dict[str, Any]]:
    """Choose styles: with many rows, the best on validation get distinct ones."""
    return styles({label: max(_validation(g)[1].values()) for label, g in curves.items()})


def score_noise(samples: Mapping[str, Samples]) -> Figure | None:
    """Draw the noise |x - z| of the scores before and |q - z| after reranking, by label.

    Left of one half, a candidate is on its label's side (DNR, arXiv 2509.18736, Fig. 1e).
    """
    if not samples:
        return None
    figure, axes = grid(2, columns=2)
    for axis, (title, positive) in zip(axes, CLASSES.items(), strict=True):
        before = _noise(next(iter(samples.values())), "scores", positive)
        _histogram(axis, before, label="retriever scores (before)", color=GREY, filled=True)
        for number, (label, sample) in enumerate(samples.items()):
            after = _noise(sample, "probabilities", positive)
            _histogram(axis, after, label=label, **style(number))
        headline(axis, title)
        axis.set(xlabel="|score - label|", ylabel="density")
    return finish(figure, "Noise of the scores before and after reranking")


def generated_scores(samples: Mapping[str, Samples]) -> Figure | None:
    """Draw the density of generated against observed scores by label (the paper's Fig. 5)."""
    made = {label: s for label, s in samples.items() if any(p in s for p in PHASES)}
    if not made:
        return None
    figure, axes = grid(2 * len(made), columns=2)
    panels = [(label, s, c) for label, s in made.items() for c in CLASSES.items()]
    for axis, (label, sample, (title, positive)) in zip(axes, panels, strict=True):
        chosen = (sample["labels"] > 0.5) == positive
        _histogram(axis, sample["scores"][chosen], label="observed", color=GREY, filled=True)
        for number, (phase, name) in enumerate(PHASES.items()):
            if phase in sample:
                _histogram(axis, sample[phase][chosen], label=name, **style(number))
        headline(axis, label, title)
        axis.set(xlabel="score", ylabel="density")
    return finish(figure, "Generated against observed scores")


def reliability(samples: Mapping[str, Samples]) -> Figure | None:
    """Draw observed positive rate against predicted probability, one panel per row."""
    if not samples:
        return None
    figure, axes = grid(len(samples), columns=3)
    bins = {n: reliability_bins(s["probabilities"], s["labels"]) for n, s in samples.items()}
    # Positives are rare, and so are high probabilities: show the range that occurs.
    top = 1.1 * max(float(max(mean.max(), rate.max())) for mean, rate in bins.values()) or 1.0
    for axis, (label, (mean, rate)) in zip(axes, bins.items(), strict=True):
        axis.plot([0, top], [0, top], color="black", linestyle=":", label="perfect calibration")
        axis.plot(
            mean, rate, "o-", color=COLOURS[0], label="model, a tenth of the candidates a dot"
        )
        headline(axis, label, f"mean gap {100 * float(np.mean(np.abs(mean - rate))):.2f} %")
        axis.set(xlabel="predicted probability", ylabel="share of positives")
        axis.set(xlim=(0, top), ylim=(0, top))
    return finish(figure, "Reliability")


def sensitivity(sweeps: Mapping[str, Mapping[float, list[float]]]) -> Figure | None:
    """Draw the main metric over each knob: mean and standard deviation over seeds, in panels.

    Args:
      sweeps: the values of all seeds, in percent, by knob and its value.
    """
    if not sweeps:
        return None
    figure, axes = grid(len(sweeps), columns=3)
    for axis, (knob, points) in zip(axes, sweeps.items(), strict=True):
        places = sorted(points)
        mean = [float(np.mean(points[p])) for p in places]
        spread = [float(np.std(points[p], ddof=1)) if len(points[p]) > 1 else 0.0 for p in places]
        axis.errorbar(places, mean, spread, fmt="o-", capsize=3, color=COLOURS[0], label="test")
        axis.set(xlabel=knob, ylabel="N@K, percent")
    return finish(figure, "Sensitivity (bars: one standard deviation over seeds)")


def reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean probability and share of positives of bins of equal size, by probability."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, RELIABILITY_BINS) if len(part)]
    means = ((probabilities[part].mean(), labels[part].mean()) for part in parts)
    mean, rate = np.array(list(means)).T
    return mean, rate


def _read_curves(folder: Path, labels: Mapping[str, str]) -> dict[str, Records]:
    records = json_files.read_lines(folder / run_folder.METRICS, keys=run_folder.METRICS_KEYS)
    rates = _chosen_rates(folder)
    # Earlier stages have losses of other kinds, and trials that were not chosen are in no table.
    # A record without validation does not belong to an epoch: the file was changed.
    last = [r for r in records if "stage" not in r and any(n.startswith("valid") for n in r)]
    curves = {
        label: [r for r in last if r["row"] == row and r.get(RATE, 1.0) == rates.get(row, 1.0)]
        for row, label in labels.items()
    }
    return {label: group for label, group in curves.items() if group}


def _read_seconds(folder: Path, labels: Mapping[str, str]) -> dict[str, Seconds]:
    """Read the wall time of each row's epochs; if an epoch ran twice, the last time counts."""
    records = json_files.read_lines(folder / run_folder.TIMINGS, keys=run_folder.TIMINGS_KEYS)
    found: dict[str, Seconds] = {}
    for record in records:
        label, seconds = labels.get(str(record["row"])), record.get("seconds")
        if label is not None and isinstance(seconds, int | float) and "epoch" in record:
            found.setdefault(label, {})[record["epoch"]] = seconds
    return found


def _read_sweeps(folder: Path) -> dict[str, dict[float, list[float]]]:
    """Collect the test N@K of all rows that are points of a figure, by knob and value."""
    sweeps: dict[str, dict[float, list[float]]] = {}
    for row in _read_rows(folder):
        if "sweep" in row and row["split"] == "test":
            points = sweeps.setdefault(row["sweep"]["knob"], {})
            metric = next(n for n in row["metrics"] if n.startswith("n@") and n[2:].isdigit())
            points.setdefault(row["sweep"]["value"], []).append(100 * row["metrics"][metric])
    return sweeps


def _chosen_rates(folder: Path) -> dict[str, float]:
    return {row["row"]: row.get(RATE, 1.0) for row in _read_rows(folder)}


def _read_rows(folder: Path) -> Records:
    path = folder / run_folder.RESULTS
    rows: Records = json_files.read(path, keys=("rows",))["rows"] if path.exists() else []
    return rows


def _read_samples(folder: Path, labels: Mapping[str, str]) -> dict[str, Samples]:
    found = {label: row_files.read_analysis(folder, row) for row, label in labels.items()}
    return {label: sample for label, sample in found.items() if sample and len(sample["labels"])}


def _curve(axis: Axes, records: Records, term: str, *, band: bool, **style: Any) -> None:
    values: dict[int, list[float]] = {}
    for record in records:
        if record.get(term) is not None:
            values.setdefault(record["epoch"], []).append(record[term])
    if not values:
        return
    epochs = sorted(values)
    mean = np.array([np.mean(values[e]) for e in epochs])
    spread = np.array([np.std(values[e], ddof=1) if len(values[e]) > 1 else 0.0 for e in epochs])
    axis.plot(epochs, mean, marker="." if len(epochs) < 12 else None, **style)
    if band:
        low, high = mean - spread, mean + spread
        axis.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _noise(sample: Samples, name: str, positive: bool) -> np.ndarray:
    chosen = (sample["labels"] > 0.5) == positive
    return np.asarray(np.abs(sample[name] - sample["labels"])[chosen])


def _histogram(axis: Axes, values: np.ndarray, *, filled: bool = False, **style: Any) -> None:
    """Draw the density of values in [0, 1]; nothing if there are none."""
    if not len(values):
        return
    density, edges = np.histogram(values, bins=BINS, range=(0, 1), density=True)
    axis.stairs(density, edges, fill=filled, linewidth=1.4, **style)
