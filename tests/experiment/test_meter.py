"""Progress over the whole: rows that were found finished do not make the rest look short."""

from dnr_jax.experiment.meter import Meter


def test_time_left_comes_from_the_rows_worked_on():
    now = [100.0]
    meter = Meter(6, clock=lambda: now[0])
    assert meter.begin("random") == "row 1 of 6: random"  # found finished
    assert meter.begin("PRM") == "row 2 of 6: PRM"
    now[0] += 60
    meter.worked()
    assert meter.begin("DLCM") == "row 3 of 6: DLCM; 1 done in 0:01:00, about 0:04:00 to go"
    now[0] += 20
    meter.worked()
    # Two rows took 40 s each; rows 4, 5 and 6 are left.
    assert meter.begin("MIR") == "row 4 of 6: MIR; 2 done in 0:01:20, about 0:02:00 to go"
