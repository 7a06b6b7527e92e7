"""The knobs of training: epochs, batch size, updates per player, seeds."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.settings import Settings, knob


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """Settings of the training of one row of the results."""

    epochs: int = knob(200, "of both phases together", at_least=1)
    loss: str = knob(
        "own",
        "own (of the model's paper) | direct (L_direct of DNR, as rows with noise always do)",
        one_of=("own", "direct"),
    )
    lambda_e: int = knob(
        60, "epochs with the heuristic generator before the learned one", at_least=0
    )
    batch_size: int = knob(512, "requests per update", at_least=1)
    micro_batch: int = knob(
        0,
        "requests whose activations one device holds at once, a divisor of batch_size; the "
        "gradient is that of the batch. 0 = 64 on a CPU where it can be, else all",
        at_least=0,
    )
    seeds: int = knob(5, "how many: seed, seed + 1, ...", at_least=1, at_most=10_000)
    learning_rate_factors: tuple[float, ...] = knob(
        (1.0,),
        "trials: a row trains once at each multiple of its learning rates and keeps the one with "
        "the best mean validation N@K over seeds",
        above=0,
        at_most=1e4,
    )
    generator_updates: int = knob(
        1, "in phase 2, the generator's updates before every group of the reranker's", at_least=1
    )
    reranker_updates: int = knob(1, "in phase 2, the reranker's updates in a group", at_least=1)
    patience: int = knob(
        20, "epochs without better validation before it stops; 0 = never", at_least=0
    )
    stream: int = knob(
        0,
        "batches that are copied from the host at a time, for data larger than the device; "
        "0 = all of the data lives on the device",
        at_least=0,
    )

    def check(self) -> None:
        """Refuse parts that do not divide the batch, and missing or repeated trials."""
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch is {self.micro_batch}, which does not divide batch_size "
                f"{self.batch_size}: choose a divisor, or 0"
            )
        factors = self.learning_rate_factors
        if not factors or len(set(factors)) < len(factors):
            raise ValueError(
                f"learning_rate_factors is {factors}: name at least one factor, each once"
            )
