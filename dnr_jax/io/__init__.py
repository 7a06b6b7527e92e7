"""What survives the process: checkpoints and the run folder."""
