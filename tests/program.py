"""The program `dnr-jax`, called in this process: the fixture `call`."""

import logging
import signal

import pytest

from dnr_jax import cli


@pytest.fixture
def call(capsys):
    """Run the program; return exit status, stdout and stderr."""
    logger, caught = logging.getLogger("dnr_jax"), signal.getsignal(signal.SIGINT)
    before = logger.level, logger.propagate, list(logger.handlers)

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        code = stopped.value.code
        if isinstance(code, str):  # what Python prints when the program ends
            return 1, said.out, f"{said.err}{code}\n"
        return code or 0, said.out, said.err

    yield run
    logger.level, logger.propagate, logger.handlers[:] = before
    signal.signal(signal.SIGINT, caught)
