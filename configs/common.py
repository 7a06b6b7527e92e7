"""The knobs that all configs share. Each default lives here and nowhere else.

A config is plain data: nothing of dnr_jax is imported. Override a knob on the command line with
`--config.SECTION.KNOB=VALUE`; a misspelt name stops the run and names the nearest known one.
"""

from ml_collections import ConfigDict

# The DNR group's settings (arXiv 2509.18736): Adam with L2 inside, clip 5, x0.1 every 100 epochs.
ADAM = {
    "learning_rate": 1e-4,  # step size at the start
    "weight_decay": 1e-3,  # L2, added to the gradient before Adam's moments (not AdamW)
    "clip": 5.0,  # bound on the global gradient norm
    "b1": 0.9,  # decay of Adam's first moment
    "b2": 0.98,  # decay of Adam's second moment
    "eps": 1e-6,  # floor of Adam's denominator
    "decay_factor": 0.1,  # the learning rate is multiplied by this ...
    "decay_every": 100,  # ... after every so many epochs
}

# What a row sets to train on the observed scores alone.
NO_NOISE = {"noise": {"name": "none"}, "generator": {"name": "none"}}

# The rows that every run trains unless `table` says otherwise.
DEFAULT_TABLE = (
    "random",
    "popularity",
    "retriever",
    "reversed",
    "plain",
    "score",
    "dnr_b",
    "dnr_g",
    "dnr_r",
    "dnr_b_conditional",
)

# Every model with the retriever's scores, beside the scorers that learn nothing.
RIVALS_TABLE = (
    *("random", "popularity", "retriever", "reversed", "mmr"),
    *("sasrec_score", "gru4rec_score", "caser_score", "midnn_score"),
    *("dlcm_score", "setrank_score", "score", "mir_score", "goalrank_score", "nar4rec_score"),
    *("pier_score", "pier_group_score", "egrerank_score", "mge_score"),
    *("diffurec_score", "dcdr_p_score", "dcdr_t_score"),
    *("advir_score", "irgan_score", "hetcomp_score", "glorank_score"),
)

# DNR's heuristic noises: letter of the row, label, `config.noise.name`.
NOISES = (
    ("b", "DNR-B", "beta"),
    ("g", "DNR-G", "gaussian"),
    ("r", "DNR-R (resampled)", "resampled"),
)

# Models beside `config.reranker` that have DNR rows of their own, `NAME_dnr_b` and so on.
BACKBONES = {"pier": "PIER", "gru4rec": "GRU4Rec"}

# The paper's ablation; `ablate` adds the rows over the weights.
ABLATION_TABLE = (
    *("retriever", "plain", "score", "score_add", "score_weight", "heuristic_g", "heuristic_b"),
    *("dnr_b_no_adv", "dnr_b_no_reg", "dnr_g", "dnr_b"),
)


def get_config() -> ConfigDict:
    """Return the paper's settings; a data set's config adds `data` and sizes of its own."""
    return ConfigDict(
        {
            "seed": 0,  # of everything random: data, candidate order, retriever, first train seed
            "cache": "~/.cache/dnr_jax",  # prepared arrays, simulated files, compiled programs
            "candidates": {
                # logged | retrieved_pool | exposed_plus_sampled | exposed_plus_retrieved
                "name": "",
                "size": 50,  # N, candidates a request
                "sampling": "uniform",  # exposed_plus_sampled only: uniform | popularity
            },
            "reranker": {
                "name": "prm",  # of dnr_jax.rerankers.RERANKERS; it reads the knobs that it names
                "width": 128,  # of embeddings and hidden layers
                "layers": 2,  # transformer blocks over the candidates
                "history_layers": 2,  # transformer blocks over the history
                "heads": 4,
                "feed_forward": 128,  # width inside a transformer block
                "dropout": 0.1,
                "positions": "none",  # none | rank (of the score) | index (of storage)
                "attention": "imsab",  # SetRank: msab (all pairs) | imsab (through learned points)
                "inducing": 20,  # SetRank (imsab) and MG-E: how many learned points
                "window": 5,  # Caser: how many of the latest events it reads
                "vertical": 4,  # Caser: filters that weigh the events of the window
                "horizontal": 8,  # Caser: filters of each height that slide over them
                "relevance": 0.7,  # MMR: weight of relevance against novelty, 0 to 1
                "utility_threshold": 3.0,  # NAR4Rec, MG-E: positives that make a shown list good
                "contrast": 0.1,  # NAR4Rec: weight of the loss that keeps candidates apart
                "perturbation": 0.3,  # AdvIR: length of the perturbation of a candidate's state
                "adversarial_weight": 1.0,  # AdvIR: weight of the loss at the perturbed states
                "snapshots": 3,  # HetComp: points of the teachers' training that are kept
                "draws": 8,  # IRGAN: candidates drawn a request, for each player
                "draw_temperature": 0.2,  # IRGAN: below 1 draws harder negatives
                "ranked_by": "generator",  # IRGAN: generator | discriminator
                "diffusion_steps": 32,  # DiffuRec: steps from the target's embedding to noise
                "reverse_steps": 4,  # DiffuRec: steps back that score a request, up to all
                "reverse_samples": 4,  # DiffuRec: samples of them that are averaged
                "uncertainty": 0.001,  # DiffuRec: mean and spread of lambda, the share of x_t
                "list_noise": "permutation",  # DCDR: permutation (swaps, DCDR-P) | token (DCDR-T)
                "noise_steps": 5,  # DCDR: steps of the noise, and steps back from the start
                "first_beta": 0.1,  # DCDR: chance of a change at the first step ...
                "last_beta": 0.5,  # ... and at the last one
                "condition_dropout": 0.1,  # DCDR: share of lists whose feedback is hidden
                "beam": 4,  # DCDR: lists kept at every step back
                "complement": 0.1,  # MG-E: weight of good lists unlike the other generators'
                "samples": 5,  # MG-E, EGRerank: lists a request that the rewarded generator samples
                "realism": 10.0,  # EGRerank: reward of lists like logged ones; 0 = no discriminator
                "group_size": 8,  # GoalRank, GloRank: sampled lists a request
                "codes": 32,  # GloRank: codes a level
                "code_levels": 2,  # GloRank: levels before items of the same codes are numbered
                "causal": False,  # True: a candidate sees only those stored before it
                "score_entry": "concatenate",  # none | concatenate | add | weight
                "score_place": "late",  # late (small MLP) | late_linear (one slope) | early
            },
            "noise": {
                "name": "beta",  # heuristic f_phi of phase 1: beta | gaussian | resampled | none
                "lambda_c": 0.4,  # Eq. 4: x' = (1 - lambda_c) z + lambda_c eps
                "alpha": 0.5,  # Beta(alpha, beta)
                "beta": 0.5,
                "fit": False,  # True: fit alpha and beta to the training scores' own noise
            },
            "generator": {  # the learned f_phi of phase 2
                "name": "learned_direct",  # learned_direct (x') | learned_mix (eps of Eq. 4) | none
                "width": 64,  # of its hidden layer
                "embedding_width": 16,  # of its own item and user embeddings
                "output": "sigmoid",  # raw outputs to [0, 1]: sigmoid | min_max (per request)
            },
            "divergence": {
                "name": "density",  # estimator of L_x, a name of dnr_jax.divergences.DIVERGENCES
                "conditional": False,  # True: compare positives and negatives apart
                "bandwidth": 0.05,  # density*, mmd: kernel width on [0, 1]
                "bins": 64,  # histogram only
                "smoothing": 1e-3,  # histogram only: mass spread evenly over the bins
            },
            "objective": {
                "lambda_m": 0.5,  # weight of L_z, the denoising loss; 0 trains on L_direct alone
                "lambda_adv": 1.0,  # weight of L_adv, the adversarial loss
                "lambda_x": 1.0,  # weight of L_x, the distribution regulariser
            },
            "optim": {"reranker": dict(ADAM), "generator": dict(ADAM)},
            "train": {
                "epochs": 200,
                "loss": "own",  # own (of the paper) | bce; rows with noise always train by bce
                "lambda_e": 60,  # epochs with the heuristic generator before the learned one
                "batch_size": 512,
                # Requests whose activations one device holds at once; it divides the batch, whose
                # gradient is the sum over its parts. 0 = 64 on a CPU where it can be, else all.
                "micro_batch": 0,
                "seeds": 5,  # how many: seed, seed + 1, ...; one table over all of them
                # Trials: every row trains once at each multiple of its learning rates and keeps the
                # one with the best mean validation N@K over seeds.
                "learning_rate_factors": (1.0,),
                "generator_updates": 1,  # in phase 2, updates of the generator ...
                "reranker_updates": 1,  # ... before every so many updates of the reranker
                "patience": 20,  # stop after so many epochs without better validation; 0 = never
                # For data larger than the device: keep it on the host and copy so many batches at
                # a time, while the device works on those before; 0 = the data lives on the device.
                "stream": 0,
            },
            "devices": {
                "count": 0,  # every batch is split over so many; 0 = all there are
                "shard_tables": False,  # True: embedding tables lie by rows over the devices
            },
            "compute": {
                # float32 | bfloat16, of the reranker in training and scoring; parameters, scores,
                # softmaxes, logits, losses and metrics are float32 in both.
                "dtype": "float32",
            },
            "eval": {
                "k": 6,  # K, the length of the shown list
                "batch_size": 512,
            },
            "table": ",".join(DEFAULT_TABLE),  # the rows to run, of those below, in table order
            "rows": rows(),
        }
    )


def shrink(config: ConfigDict) -> None:
    """Size model, history and optimiser for two CPU cores and a few minutes."""
    config.data.history = 20
    config.reranker.update(width=32, heads=2, layers=1, history_layers=1, feed_forward=64)
    config.generator.update(width=32, embedding_width=8)
    for player in ("reranker", "generator"):
        # Chosen on validation: at this size the paper's L2 outweighs the gradients.
        config.optim[player].update(learning_rate=3e-3, weight_decay=1e-5)
    config.train.update(batch_size=128, patience=0)


def compare(config: ConfigDict) -> None:
    """Set the table to all rivals and all DNR rows, each with the same two trials."""
    dnr = [key for name in ("", *BACKBONES) for key in _dnr_rows(name)]
    config.table = ",".join((*RIVALS_TABLE, *dnr))
    config.train.learning_rate_factors = (1.0, 3.0)


def ablate(config: ConfigDict) -> None:
    """Set the table to the paper's ablation, and DNR-B over lambda_c, lambda_m and lambda_e."""
    quarters = sorted({round(config.train.epochs * share) for share in (0, 0.25, 0.5, 0.75)})
    swept = {
        **_sweep("noise", "lambda_c", (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)),
        **_sweep("objective", "lambda_m", (0.1, 0.25, 0.5, 0.75, 1.0)),
        **_sweep("train", "lambda_e", quarters),
    }
    config.rows.update(swept)
    config.table = ",".join((*ABLATION_TABLE, *swept))


def _sweep(section: str, knob: str, values: tuple | list) -> dict:
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


def rows() -> dict:
    """Return the table: each row names its model, its label and the knobs it sets.

    A row's knobs win over the command line's; the row "dnr" sets none and is the config as it
    stands. `{reranker}` stands for the name in `config.reranker`.
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
        "dnr": {"model": "{reranker}+dnr", "label": "DNR as configured", "set": {}},
        **_dnr_rows(),
        **{key: row for name in BACKBONES for key, row in _dnr_rows(name).items()},
        "score_add": _score("add", "added"),
        "score_weight": _score("weight", "as weights"),
        "heuristic_b": _heuristic("b", "Beta", "beta"),
        "heuristic_g": _heuristic("g", "Gaussian", "gaussian"),
        "dnr_b_no_adv": _without("adv", "L_adv", "lambda_adv"),
        "dnr_b_no_reg": _without("reg", "L_x", "lambda_x"),
        **_rival("caser", "Caser"),
        **_rival("sasrec", "SASRec"),
        **_rival("gru4rec", "GRU4Rec"),
        **_rival("midnn", "MiDNN"),
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


def _trivial(name: str, label: str) -> dict:
    return {"model": name, "label": label, "set": {"reranker": {"name": name}}}


def _score(entry: str, words: str) -> dict:
    return {
        "model": "{reranker}+score-" + entry,
        "label": "{reranker} with scores " + words,
        "set": {"reranker": {"score_entry": entry}, **NO_NOISE},
    }


def _heuristic(suffix: str, words: str, noise: str) -> dict:
    knobs = {"noise": {"name": noise}, "generator": {"name": "none"}}
    return {
        "model": "{reranker}+heuristic-" + suffix,
        "label": f"{words} noise, no generator",
        "set": knobs,
    }


def _rival(row: str, label: str, **knobs: str) -> dict:
    """Make a model's two rows, `row` without scores and `row_score` with them.

    The model is `row` too, unless `knobs` of the reranker name another.
    """
    knobs = {"name": row, **knobs}
    without = {"reranker": {**knobs, "score_entry": "none"}, **NO_NOISE}
    return {
        row: {"model": row, "label": f"{label} without scores", "set": without},
        f"{row}_score": {
            "model": f"{row}+score",
            "label": f"{label} with scores",
            "set": {"reranker": knobs, **NO_NOISE},
        },
    }


def _dnr_rows(name: str = "") -> dict:
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


def _without(suffix: str, term: str, weight: str) -> dict:
    return {
        "model": "{reranker}+dnr-b-no-" + suffix,
        "label": f"DNR-B without {term}",
        "set": {"objective": {weight: 0.0}},
    }
