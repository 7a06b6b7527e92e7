"""A small finished run folder whose table can be checked by hand."""

import numpy as np
import pytest

from dnr_jax.io import per_request, run_folder

REQUESTS = 60
# N@6 of each model and seed; the per-request values are spread around it, the same for all.
N_AT_6 = {
    "random": {0: 0.20},
    "reversed": {0: 0.50},
    "prm": {0: 0.40, 1: 0.44, 2: 0.48},
    "prm+dnr-b": {0: 0.70, 1: 0.71, 2: 0.75},
}
LABELS = {
    "random": "random",
    "reversed": "reversed order",
    "prm": "PRM without scores",
    "prm+dnr-b": "DNR-B, conditional L_x & 50% more",
}


def config_of(**factors):
    """Make a config whose learned rows have these `learning_rate_factors`."""
    rows = {key: {"train": {"learning_rate_factors": tried}} for key, tried in factors.items()}
    return {"seed": 0, "eval": {"k": 6}, "rows": {"random": {}, "reversed": {}, **rows}}


CONFIG = config_of(prm=[1.0], dnr_b=[1.0])
ENVIRONMENT = {
    "command": "python -m dnr_jax.main --config configs/recflow.py",
    "commit": {"name": "0123456789abcdef", "dirty": True},
    "cpu": "Some CPU",
    "cpu_count": 2,
    "memory_gib": 8.0,
    "backend": "cpu",
    "devices": ["cpu"],
    "packages": {"jax": "0.10.2"},
    "python": "3.11.2",
}


def row_key(model):
    return model.removeprefix("prm+").replace("-", "_")


def result_rows(protocol):
    rows = []
    for model, seeds in N_AT_6.items():
        for seed, value in seeds.items():
            metrics = {"h@6": value / 2, "n@6": value, "m@6": value / 4, "f1@6": value / 5}
            metrics |= {"auc": 0.5 + value / 4, "ece": 0.1234, "diversity@6": float("nan")}
            if not model.startswith("r"):
                metrics["spearman_truth"] = value - 0.1
            rows.append(
                {
                    "row": row_key(model),
                    "model": model,
                    "label": LABELS[model],
                    "trivial": model in ("random", "reversed"),
                    "protocol": protocol,
                    "split": "test",
                    "seed": seed,
                    "requests": REQUESTS,
                    "excluded": 10,
                    "metrics": metrics,
                }
            )
    return rows


def per_request_columns():
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.01, REQUESTS)
    noise -= noise[10:].mean()
    parts = []
    for model, seeds in N_AT_6.items():
        for seed, value in seeds.items():
            values = np.where(np.arange(REQUESTS) < 10, np.nan, value + noise)
            # Rows of a model need not be in the order of the requests.
            order = generator.permutation(REQUESTS)
            parts.append((model, seed, order, values[order]))
    return {
        "model": np.concatenate([[m] * REQUESTS for m, *_ in parts]),
        "seed": np.concatenate([np.full(REQUESTS, s, np.int32) for _, s, *_ in parts]),
        "request_id": np.concatenate([1000 + order.astype(np.int64) for *_, order, _ in parts]),
        "n@6": np.concatenate([v.astype(np.float32) for *_, v in parts]),
    }


def metric_records():
    records = []
    for row in ("prm", "dnr_b"):
        for seed in range(3):
            for epoch in range(1, 9):
                base = np.exp(-epoch / (3 if row == "prm" else 2)) + 0.02 * seed
                record = {"row": row, "label": row.upper(), "seed": seed, "epoch": epoch}
                record |= {"loss_direct": base, "valid_n@6": 0.5 - base / 3}
                if row == "dnr_b":
                    record["loss_z"] = base / 2
                    record["loss_adv"] = float("nan") if epoch < 5 else -base
                records.append(record)
    return records


def analysis_arrays(*, slope, generated):
    generator = np.random.default_rng(1)
    labels = (generator.random(4000) < 0.2).astype(np.float32)
    scores = np.where(labels > 0, generator.beta(4, 3, 4000), generator.beta(2, 5, 4000))
    logits = slope * (scores - 0.5) + generator.normal(0, 0.5, 4000)
    arrays = {"scores": scores, "labels": labels, "probabilities": 1 / (1 + np.exp(-logits))}
    if generated:
        arrays["generated_phase1"] = 0.6 * labels + 0.4 * generator.beta(0.5, 0.5, 4000)
        arrays["generated_phase2"] = 0.2 * labels + 0.8 * generator.beta(3, 5, 4000)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes the run folder of a protocol and returns its path."""

    def make(protocol="logged"):
        folder = tmp_path / protocol
        with run_folder.open_run(folder, CONFIG) as run:
            run.write_json(run_folder.ENVIRONMENT, ENVIRONMENT)
            run.write_json(run_folder.RESULTS, {"rows": result_rows(protocol)})
            per_request.write(folder / run_folder.PER_REQUEST, per_request_columns())
            run.append_metrics(*metric_records())
            run.write_analysis("prm", **analysis_arrays(slope=1, generated=False))
            run.write_analysis("dnr_b", **analysis_arrays(slope=5, generated=True))
        return folder

    return make


@pytest.fixture
def make_config():
    """Hand out `config_of`."""
    return config_of
