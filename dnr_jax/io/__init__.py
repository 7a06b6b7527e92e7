"""Files that outlive the process: checkpoints and the run folder."""
