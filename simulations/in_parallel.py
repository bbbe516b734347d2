"""Jobs in parallel processes: those of this machine, or of a Ray cluster when there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from fl_shield.errors import FlShieldError

QUIET_RAY = {"RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Read by Ray when it is imported."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, gpus: float = 0.0
) -> Iterator[tuple[Job, Result | Exception]]:
    """Yield each job with what it came to, as they finish.

    Args:
        work: What to do with a job; it runs in another process unless `is_in_process` says
            otherwise, and is sent there once, with all that it refers to. What it raises is
            yielded, a configuration error among it, and so is the death of a process.
        jobs: The jobs.
        workers: Processes on this machine. With `RAY_ADDRESS` set, Ray's cluster decides instead.
        gpus: GPUs that a job takes; below 1 for several jobs on one.

    Raises:
        FlShieldError: if Ray cannot start, or its cluster cannot be reached.
    """
    if is_in_process(workers, len(jobs)):
        for job in jobs:
            yield job, _attempt(work, job)
        return
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET_RAY.items()})
    import ray

    start_ray(workers)
    try:
        task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(_attempt)
        shared = ray.put(work)
        waiting: dict[Any, Job] = {task.remote(shared, job): job for job in jobs}
        while waiting:
            (reference, *_), _ = ray.wait(list(waiting))
            job = waiting.pop(reference)
            try:
                yield job, ray.get(reference)
            except ray.exceptions.RayError as error:
                yield job, error
    finally:
        ray.shutdown()


def is_in_process(workers: int, jobs: int) -> bool:
    """Return whether `in_parallel` does so many jobs in this process, without Ray."""
    return not is_cluster() and (workers == 1 or jobs < 2)


def is_cluster() -> bool:
    """Return whether the user named a Ray cluster."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start_ray(workers: int) -> None:
    """Connect to the cluster that the user named, or start Ray on this machine.

    Raises:
        FlShieldError: if Ray cannot start, or its cluster cannot be reached.
    """
    import ray

    # A cluster knows its own size, and refuses to be told. Without one, "local" keeps Ray from the
    # address that somebody else's cluster left on this machine, dead or alive.
    cores, address = (None, None) if is_cluster() else (workers, "local")
    try:
        ray.init(
            address,
            num_cpus=cores,
            logging_level=40,
            log_to_driver=False,
            ignore_reinit_error=True,
        )
    except Exception as error:  # Ray raises a bare one when the machine is too busy
        raise FlShieldError(
            f"Ray cannot start its processes ({error}). Try again, or with workers=1, without Ray."
        ) from error


def _attempt(work: Callable[[Job], Result], job: Job) -> Result | Exception:
    """Return the result of a job or what it raised: one broken job must not end a night's work."""
    try:
        return work(job)
    except Exception as error:
        return error
