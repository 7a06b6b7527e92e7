"""How a process ends."""

import subprocess
import sys

import pytest

ENDS = """
import os, signal, sys, threading
from dnr_jax import console

def program():
    console.catch_interrupts()
    {body}

console.whole_process(program)
os.kill(os.getpid(), signal.SIGINT)  # as if it came while Python takes itself down
print("the end")
"""


def run(body):
    command = [sys.executable, "-c", ENDS.format(body=body)]
    return subprocess.run(command, capture_output=True, text=True)


def test_ctrl_c_after_the_end_changes_nothing():
    done = run("print('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\nthe end\n", "")


def test_a_reader_who_has_gone_ends_no_work_and_leaves_no_trace():
    body = "console.log_plainly(); log = __import__('logging').getLogger('dnr_jax'); "
    body += "[log.info('x' * 9999) for _ in range(99)]; sys.stderr.write('done'); os._exit(0)"
    command = [sys.executable, "-c", ENDS.format(body=body)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"done"


def test_ctrl_c_ends_a_program_at_once_and_says_what_is_left():
    body = "with console.one_line('all is saved'): os.kill(os.getpid(), signal.SIGINT)"
    done = run(body)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "stopped: all is saved\n"


LOST = """
    import gc
    def during_gc(phase, info):
        if phase == "start":
            gc.callbacks.remove(during_gc)
            os.kill(os.getpid(), signal.SIGINT)
    with console.one_line("all is saved"):
        gc.callbacks.append(during_gc)
        gc.collect()
        print("lost", flush=True)
        signal.pause()
"""


def test_ctrl_c_that_a_callback_loses_comes_again_and_shows_no_traceback():
    done = run(LOST.strip())
    assert (done.returncode, done.stdout, done.stderr) == (130, "lost\n", "stopped: all is saved\n")


BROKEN_OFF = """
    with console.one_line("all is saved"):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            raise RuntimeError("cannot schedule new futures after shutdown") from None
"""


def test_what_ctrl_c_broke_off_ends_as_stopped_however_it_fails():
    done = run(BROKEN_OFF.strip())
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped: all is saved\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ValueError('no such row')", "error: no such row\n"),
        ("MemoryError()", "error: not enough memory: choose smaller sizes\n"),
    ],
)
def test_an_error_ends_in_one_line(error, said):
    done = run(f"with console.one_line('nothing'): raise {error}")
    assert done.returncode == 1
    assert done.stderr == said
