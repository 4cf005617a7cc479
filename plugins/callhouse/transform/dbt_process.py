"""The process that dbt runs in: `python -I dbt_process.py PARENT`, for callhouse.transform.dbt.

dbt takes two seconds to import, and what it knows of a run stays in its modules. So it is imported
once, and each run is a fork of its own. A run is a line of JSON: `arguments`, `environment`
and the file that the `results` go to. The answer is what dbt says, then END and its exit code.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys

from dbt.adapters import postgres  # noqa: F401 - dbt imports it when it has read the profile
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.exceptions import DbtUsageException
from dbt.cli.main import dbtRunner

END = "\0"
# Nobody has asked for as long: the memory is better used by others.
REST_SECONDS = 60


def end_with(parent: int) -> None:
    """Ends with its parent (Linux: PR_SET_PDEATHSIG), however that ends.

    The dbt of a killed transform would go on writing candidates while the next one builds, audits
    and seals its own.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def run(arguments: list[str], results: str) -> int:
    """dbt's exit code; its results are written without the manifest, which takes it a second."""
    outcome = dbtRunner().invoke(arguments)
    if isinstance(outcome.result, RunExecutionResult):
        outcome.result.write(results)
    if isinstance(outcome.exception, DbtUsageException):
        sys.stdout.write(f"{outcome.exception}\n")  # dbt itself says everything else
    return 0 if outcome.success else 1


def main(parent: int) -> None:
    """Answer until nobody asks any more."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which is for the runs
    me = os.getpid()
    gc.freeze()  # what forks share is not copied by the first collection
    signal.alarm(REST_SECONDS)
    for line in sys.stdin:
        signal.alarm(0)
        asked = json.loads(line)
        child = os.fork()
        if not child:
            end_with(me)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.clear()
            os.environ.update(asked["environment"])
            sys.exit(run(asked["arguments"], asked["results"]))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{END}{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
        signal.alarm(REST_SECONDS)


if __name__ == "__main__":
    main(int(sys.argv[1]))
