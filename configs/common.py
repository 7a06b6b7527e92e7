"""Parts that the experiments share: the rows of the tables, and sizes for small machines.

An experiment is nested plain data and contains only what differs from the defaults. Each default is
written next to its knob, with its meaning and range, in the file of the model or part, for example
`dnr_jax/rerankers/prm.py`. Nothing from the package is imported here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

# The rows that a run trains unless `table` says otherwise.
DEFAULT_TABLE = (
    *("random", "popularity", "retriever", "reversed", "plain", "score"),
    *("dnr_b", "dnr_g", "dnr_r", "dnr_b_conditional"),
)

# Every model with the retriever's scores, and the scorers that learn nothing.
RIVALS_TABLE = (
    *("random", "popularity", "retriever", "reversed", "mmr"),
    *("sasrec_score", "gru4rec_score", "caser_score", "midnn_score"),
    "matching_transformer_score",
    *("dlcm_score", "setrank_score", "score", "mir_score", "goalrank_score", "nar4rec_score"),
    *("pier_score", "pier_group_score", "egrerank_score", "mge_score"),
    *("diffurec_score", "dcdr_p_score", "dcdr_t_score"),
    *("advir_score", "irgan_score", "hetcomp_score", "glorank_score"),
)

# The paper's ablation; `ablation` adds rows with other weights.
ABLATION_TABLE = (
    *("retriever", "plain", "score", "score_add", "score_weight", "heuristic_g", "heuristic_b"),
    *("dnr_b_no_adv", "dnr_b_no_reg", "dnr_g", "dnr_b"),
)

# DNR's claim, with the controls: without scores, scores hidden at random, noise alone.
CLAIM_TABLE = (
    *("random", "popularity", "retriever", "reversed", "plain", "score", "score_dropout"),
    *("heuristic_g", "dnr_g", "dnr_g_conditional", "dnr_b", "dnr_r"),
)

# Further controls and the variants that the paper does not have.
VARIANTS_TABLE = (
    *("retriever", "plain", "score", "score_dropout", "label_smoothing", "heuristic_r", "dnr_g"),
    *("dnr_bounded", "dnr_g_dropout", "dnr_b_conditional", "dnr_r_conditional", "dnr_g_binned"),
    *("dnr_r_rate", "score_prior", "dnr_g_prior"),
)

# List models without and with the product of history and candidate, and two that have it anyway.
MATCHING_MODELS = {
    "dlcm": "DLCM",
    "setrank": "SetRank",
    "midnn": "MiDNN",
    "mir": "MIR",
    "nar4rec": "NAR4Rec",
    "pier": "PIER",
    "goalrank": "GoalRank",
}
MATCHING_TABLE = (
    *("retriever", "sasrec_score", "matching_transformer_score", "score", "score_matching"),
    "prm_pretrained_score",
    *(f"{name}_{kind}" for name in MATCHING_MODELS for kind in ("score", "matching")),
)

# Retrievers in the table of first stages; with the extra `retrievers`, add item_knn and als.
FIRST_STAGES = (
    *("random", "popularity", "matrix_factorization", "two_tower", "sequential"),
    *("rankflow", "fs_ltr", "cascade"),
)

# DNR's heuristic noises: letter of the row, label, `config.noise.name`.
NOISES = (
    ("b", "DNR-B", "beta"),
    ("g", "DNR-G", "gaussian"),
    ("r", "DNR-R (resampled)", "resampled"),
)

# Models with their own DNR rows, `NAME_dnr_b` and so on, in addition to those of `config.reranker`.
BACKBONES = {"pier": "PIER", "gru4rec": "GRU4Rec", "sasrec": "SASRec"}

# The settings of a row that trains on the observed scores alone.
NO_NOISE = {"noise": {"name": "none"}, "generator": {"name": "none"}}

# Sizes of model, history and optimiser for two CPU cores and a few minutes. The optimiser was
# chosen on validation: at this size the paper's L2 outweighs the gradients.
_QUICK = {"learning_rate": 3e-3, "weight_decay": 1e-5}
SMALL = {
    "data": {"history": 20},
    "reranker": {"width": 32, "heads": 2, "layers": 1, "history_layers": 1, "feed_forward": 64},
    "generator": {"width": 32, "embedding_width": 8},
    "optim": {"reranker": _QUICK, "generator": _QUICK},
    "train": {"batch_size": 128, "patience": 0},
}

# A smaller model for tables with many rows.
NARROW = {"reranker": {"width": 16, "feed_forward": 32}}

# The preset that checks in about a minute that everything works.
SMOKE = {
    "table": "random,popularity,retriever,reversed,dnr_b",
    "reranker": {"width": 16},
    "train": {"epochs": 2, "lambda_e": 1, "batch_size": 64, "seeds": 1},
}

# Every protocol under which interactions can be prepared without a log of random exposure.
PROTOCOLS = {"candidates": {"name": "retrieved_pool,exposed_plus_sampled,exposed_plus_retrieved"}}


def presets(
    train: Mapping[str, Any],
    *,
    reduced: Mapping[str, Any],
    smoke: Mapping[str, Any],
    rivals_too: Mapping[str, Any] | None = None,
    ablation_too: Mapping[str, Any] | None = None,
) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Make the presets that every config has, each as the layers of `experiment`.

    Args:
      train: training at the size of `SMALL`.
      reduced: changes of `train` for tables with many rows.
      smoke: additions to `SMOKE`, such as the size of the simulation.
      rivals_too: additions to `rivals`, at both sizes.
      ablation_too: additions to `ablation`.
    """
    small = (SMALL, {"train": train})
    narrow = (*small, NARROW)
    fewer = (*narrow, {"train": reduced})
    every = (rivals_too or {}, rivals())
    epochs = int((dict(train) | dict(reduced))["epochs"])
    return {
        "": small,
        "smoke": (*small, SMOKE, smoke),
        "rivals": (*fewer, *every),
        "rivals_paper": every,
        "ablation": (*fewer, ablation_too or {}, ablation(epochs=epochs)),
        "converged": (*narrow, converged()),
        "variants": (*narrow, converged(VARIANTS_TABLE)),
        "matching": (*narrow, converged(MATCHING_TABLE)),
        "paper": (),  # the defaults
    }


def experiment(*layers: Mapping[str, Any]) -> ConfigDict:
    """Return the rows and the default table with `layers` on top; the later layer wins."""
    config: dict[str, Any] = {"table": ",".join(DEFAULT_TABLE), "rows": rows()}
    for layer in layers:
        config = _merge(config, layer)
    return ConfigDict(config)


def chosen(presets: Mapping[str, Any], name: str, file: str) -> Any:
    """Return the preset of a name; `ValueError` lists the known names."""
    if name not in presets:
        known = ", ".join(preset or "none" for preset in presets)
        raise ValueError(f"{file} has no preset {name!r}: choose one of {known}")
    return presets[name]


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Copy nested plain data with `changes` on top."""
    merged = {
        name: _merge(part, {}) if isinstance(part, Mapping) else part for name, part in base.items()
    }
    for name, value in changes.items():
        nested = isinstance(value, Mapping)
        merged[name] = _merge(merged.get(name, {}), value) if nested else value
    return merged


def rivals() -> dict[str, Any]:
    """All models and all DNR rows, each with the same two trials of the learning rate."""
    dnr = [key for name in ("", *BACKBONES) for key in _dnr_rows(name)]
    return {
        "table": ",".join((*RIVALS_TABLE, *dnr)),
        "train": {"learning_rate_factors": (1.0, 3.0)},
    }


def converged(table: Sequence[str] = CLAIM_TABLE) -> dict[str, Any]:
    """Rows trained to convergence, each with the same trials of its learning rate.

    A tenfold decay of the learning rate improves every row, so all share a schedule with two such
    steps. Patience would stop some rows before the first step, and schedules would differ.
    """
    decay = {"decay_every": 25}
    return {
        "table": ",".join(table),
        "optim": {"reranker": decay, "generator": decay},
        "train": {
            "epochs": 60,
            "lambda_e": 6,
            "patience": 0,
            "seeds": 3,
            "learning_rate_factors": (1.0, 3.0, 9.0),
        },
    }


def first_stages() -> dict[str, Any]:
    """Two rerankers, without scores, with them and under DNR, on each of the retrievers."""
    kinds = ("dnr_g", "dnr_b", "dnr_b_conditional")
    prm = ("retriever", "plain", "score", *kinds)
    sasrec = ("sasrec", "sasrec_score", *(f"sasrec_{kind}" for kind in kinds))
    return {
        "retriever": {"name": ",".join(FIRST_STAGES)},
        "table": ",".join((*prm, *sasrec)),
    }


def ablation(*, epochs: int) -> dict[str, Any]:
    """The paper's ablation, and DNR-B with other lambda_c, lambda_m and lambda_e, in `epochs`."""
    quarters = sorted({round(epochs * share) for share in (0, 0.25, 0.5, 0.75)})
    swept = {
        **_sweep("noise", "lambda_c", (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)),
        **_sweep("objective", "lambda_m", (0.1, 0.25, 0.5, 0.75, 1.0)),
        **_sweep("train", "lambda_e", quarters),
    }
    return {"table": ",".join((*ABLATION_TABLE, *swept)), "rows": swept}


def _sweep(section: str, knob: str, values: Sequence[float]) -> dict[str, Any]:
    """Make a row of DNR-B for each value of a knob; the reports draw them as one figure."""
    return {
        f"{knob}_{number}": {
            "model": "{reranker}+dnr-b-" + f"{knob}-{value:g}",
            "label": f"DNR-B, {knob} = {value:g}",
            "set": {section: {knob: value}},
            "sweep": {"knob": knob, "value": float(value)},
        }
        for number, value in enumerate(values)
    }


def rows() -> dict[str, Any]:
    """Return the rows: each names its model, its label and the knobs it sets.

    A row's knobs override the command line's; the row "dnr" sets none and is the config as given.
    `{reranker}` is replaced by the name in `config.reranker`.
    """
    return {
        "random": _trivial("random", "random"),
        "popularity": _trivial("popularity", "popularity"),
        "retriever": _trivial("retriever", "retriever order"),
        "reversed": _trivial("reversed", "reversed order"),
        "plain": {
            "model": "{reranker}",
            "label": "{reranker} without scores",
            "set": {"reranker": {"score_entry": "none"}, **NO_NOISE},
        },
        "score": {
            "model": "{reranker}+score",
            "label": "{reranker} with scores",
            "set": NO_NOISE,
        },
        "score_matching": _matching("{reranker}"),
        **{f"{name}_matching": _matching(label, name) for name, label in MATCHING_MODELS.items()},
        "dnr": {"model": "{reranker}+dnr", "label": "DNR as configured", "set": {}},
        **_dnr_rows(),
        **{key: row for name in BACKBONES for key, row in _dnr_rows(name).items()},
        "score_add": _score("add", "added"),
        "score_weight": _score("weight", "as weights"),
        "heuristic_b": _heuristic("b", "Beta", "beta"),
        "heuristic_g": _heuristic("g", "Gaussian", "gaussian"),
        "heuristic_r": _heuristic("r", "Resampled", "resampled"),
        "score_dropout": _control("score_dropout", "hidden from one request in two", 0.5),
        "label_smoothing": _control("label_smoothing", "and smooth labels", 0.1),
        "dnr_bounded": _bounded(),
        "dnr_g_dropout": {
            "model": "{reranker}+dnr-g-dropout",
            "label": "DNR-G, scores hidden from one request in two",
            "set": {"noise": {"name": "gaussian"}, "objective": {"score_dropout": 0.5}},
        },
        "dnr_g_binned": {
            "model": "{reranker}+dnr-g-binned",
            "label": "DNR-G, L_x given label and bin of x",
            "set": {
                "noise": {"name": "gaussian"},
                "divergence": {"conditional": True, "score_bins": 4},
            },
        },
        "dnr_r_rate": {
            "model": "{reranker}+dnr-r-rate",
            "label": "DNR-R, x mixed with resampled x at a learned rate",
            "set": {"noise": {"name": "resampled"}, "generator": {"name": "learned_rate"}},
        },
        "score_prior": {
            "model": "{reranker}+score-prior",
            "label": "{reranker} on top of the first stage",
            "set": {"reranker": {"score_place": "prior"}, **NO_NOISE},
        },
        "dnr_g_prior": {
            "model": "{reranker}+dnr-g-prior",
            "label": "DNR-G on top of the first stage",
            "set": {"reranker": {"score_place": "prior"}, "noise": {"name": "gaussian"}},
        },
        "dnr_b_no_adv": _without("adv", "L_adv", "lambda_adv"),
        "dnr_b_no_reg": _without("reg", "L_x", "lambda_x"),
        **_rival("caser", "Caser"),
        **_rival("sasrec", "SASRec"),
        **_rival("gru4rec", "GRU4Rec"),
        **_rival("midnn", "MiDNN"),
        **_rival("matching_transformer", "Matching transformer"),
        **_rival("prm_pretrained", "PRM with pre-trained vectors", name="prm", pretrained=True),
        **_rival("dlcm", "DLCM"),
        **_rival("setrank", "SetRank"),
        **_rival("mir", "MIR"),
        **_rival("goalrank", "GoalRank"),
        **_rival("advir", "AdvIR"),
        **_rival("nar4rec", "NAR4Rec"),
        **_rival("pier", "PIER"),
        **_rival("pier_group", "PIER (group's variant)"),
        **_rival("glorank", "GloRank"),
        **_rival("irgan", "IRGAN"),
        **_rival("hetcomp", "HetComp"),
        **_rival("diffurec", "DiffuRec"),
        **_rival("egrerank", "EGRerank"),
        **_rival("mge", "MG-E"),
        **_rival("dcdr_p", "DCDR-P", name="dcdr", list_noise="permutation"),
        **_rival("dcdr_t", "DCDR-T", name="dcdr", list_noise="token"),
        "mmr": _trivial("mmr", "MMR of the retriever's scores"),
    }


def _trivial(name: str, label: str) -> dict[str, Any]:
    return {"model": name, "label": label, "set": {"reranker": {"name": name}}}


def _score(entry: str, words: str) -> dict[str, Any]:
    return {
        "model": "{reranker}+score-" + entry,
        "label": "{reranker} with scores " + words,
        "set": {"reranker": {"score_entry": entry}, **NO_NOISE},
    }


def _matching(label: str, name: str = "") -> dict[str, Any]:
    """Make a list model's row with scores and with the matching term of the shared trunk."""
    backbone = {"name": name} if name else {}
    return {
        "model": f"{name or '{reranker}'}+score-matching",
        "label": f"{label} with scores and matching",
        "set": {"reranker": {**backbone, "matching": True}, **NO_NOISE},
    }


def _heuristic(suffix: str, words: str, noise: str) -> dict[str, Any]:
    knobs = {"noise": {"name": noise}, "generator": {"name": "none"}}
    return {
        "model": "{reranker}+heuristic-" + suffix,
        "label": f"{words} noise, no generator",
        "set": knobs,
    }


def _control(knob: str, words: str, value: float) -> dict[str, Any]:
    """Make a row of direct training with one knob of the objective set."""
    return {
        "model": "{reranker}+" + knob.replace("_", "-"),
        "label": "{reranker} with scores " + words,
        "set": {"objective": {knob: value}, "train": {"loss": "direct"}, **NO_NOISE},
    }


def _bounded() -> dict[str, Any]:
    """Make the row whose adversary only moves the observed scores a little, from epoch 1 on."""
    return {
        "model": "{reranker}+dnr-bounded",
        "label": "bounded adversary around x",
        "set": {
            "noise": {"name": "gaussian"},
            "generator": {"name": "learned_bounded"},
            "objective": {"lambda_x": 0.0},
            "train": {"lambda_e": 0},
        },
    }


def _rival(row: str, label: str, name: str = "", **own: Any) -> dict[str, Any]:
    """Make a model's two rows, `row` without scores and `row_score` with them.

    The model is also called `row`, unless `name` is given; `own` are knobs that only it has.
    """
    name = name or row
    knobs = {"rerankers": {name: own}} if own else {}
    without = {"reranker": {"name": name, "score_entry": "none"}, **knobs, **NO_NOISE}
    return {
        row: {"model": row, "label": f"{label} without scores", "set": without},
        f"{row}_score": {
            "model": f"{row}+score",
            "label": f"{label} with scores",
            "set": {"reranker": {"name": name}, **knobs, **NO_NOISE},
        },
    }


def _dnr_rows(name: str = "") -> dict[str, Any]:
    """Make a backbone's DNR rows: each noise, with L_x as configured and with L_x given the label.

    Without a name the backbone is `config.reranker`; with one the keys begin with it.
    """
    start, on = (f"{name}_", f" on {BACKBONES[name]}") if name else ("", "")
    backbone = {"reranker": {"name": name}} if name else {}
    made = {}
    for letter, words, noise in NOISES:
        knobs = backbone | {"noise": {"name": noise}}
        model = f"{name or '{reranker}'}+dnr-{letter}"
        made[f"{start}dnr_{letter}"] = {"model": model, "label": words + on, "set": knobs}
        made[f"{start}dnr_{letter}_conditional"] = {
            "model": f"{model}-conditional",
            "label": f"{words}{on}, conditional L_x",
            "set": knobs | {"divergence": {"conditional": True}},
        }
    return made


def _without(suffix: str, term: str, weight: str) -> dict[str, Any]:
    return {
        "model": "{reranker}+dnr-b-no-" + suffix,
        "label": f"DNR-B without {term}",
        "set": {"objective": {weight: 0.0}},
    }
