"""Two players, one step: optimisers, the alternating step, the epoch program, the two phases."""
