"""A loopback IBM Quantum service: what the real qiskit-ibm-runtime client needs, on 127.0.0.1, failing on command.

In the process of a test::

    with LoopbackService() as loopback:                       # five qubits of the fake Torino, with its noise
        backend = loopback.backend()                          # a real IBMBackend of a real QiskitRuntimeService
        fault = loopback.fail("drop_after", "submit", skip=1)  # the second job is taken, its answer never arrives
        ...                                                   # run Session, Batch, Estimator, a whole training
        assert loopback.fired(fault) == 1
        assert [job.executed for job in loopback.jobs_tagged("my-request")] == [1]
        assert not loopback.open_sessions

In a process of its own, which outlives a client that is killed; the client connects by environment variables alone::

    with loopback_process("queue_seconds=0.2") as loopback:   # or: python -m tests.loopback --port 0 queue_seconds=0.2
        subprocess.run([...], env={**os.environ, **loopback.environment})
        print(loopback.jobs)                                  # the same methods as above, see `control.Controls`

To kill a client at a known point, hold it there: ``fault = loopback.fail("stall_after", "submit", skip=3, seconds=60)``,
wait until ``loopback.fired(fault)``, and send SIGKILL. (The job was taken; with "stall" it would not.)

What there is to know

- Kinds of faults, their options and the operations they hit: see `faults`. Settings (timing, limits, plan, engine):
  `records.Settings`, given to the constructor or changed with ``configure(...)``. Records of jobs and sessions: `records`.
- A job's noise comes from its tags, or from what it asks for if it has none: the same request gives the same bits in any
  job, session, process and at any time. ``noise_pattern=`` chooses the part of the tags that counts, such as a key without
  the run's name, or (None) the content alone; ``seed=`` makes other noise of all.
- ``JobRecord.digest`` is equal for equal requests, so "nothing ran twice" can be asserted without tags too.
- Nothing runs in the background. With no queue and no run time a job is done before its submission is answered; with
  ``queue_seconds`` or ``run_seconds`` it advances when somebody asks. ``skip(seconds)`` turns the clock forward.
- ``engine="noisy"`` (default): the noise of the fake backend, 200 circuits of 4 qubits in 0.15 s; "ideal": without it;
  "random": coin flips in a few milliseconds, for soak and kill tests, through the same schemas. The legacy estimator runs
  on Aer, and for "random" on its exact values.
- ``LoopbackService("FakeTorino", qubits=None)`` serves all 133 qubits; circuits that entangle at most ten are fine.
- Billing is IBM's formula: 2 s per job + (rep delay + circuit duration) × executions, in ``metrics()["usage"]`` and in
  ``usage()`` of the instance. Jobs that failed or were cancelled cost nothing here.
- In a test that uses ``loopback.service()`` set the variable USAGE_DATA_OPT_OUT=True (it is in ``environment``): under
  pytest the client is five times as fast with it.
- Contents of jobs are dropped when they have run; results are kept compressed.
- The API key is `API_KEY`; ``saw_token(text)`` finds it, and the access token made from it, in a log or a file.

What cannot be known about the real service is listed in `errors` and in the docstrings of what guesses.
"""

from __future__ import annotations

from .client import LoopbackService, loopback_process
from .control import Controls, RemoteControl
from .faults import JOB_KINDS, OPERATIONS, REQUEST_KINDS, RESULT_KINDS
from .records import JobRecord, SessionRecord, Settings
from .service import API_KEY, INSTANCE

__all__ = [
    "API_KEY",
    "INSTANCE",
    "JOB_KINDS",
    "OPERATIONS",
    "REQUEST_KINDS",
    "RESULT_KINDS",
    "Controls",
    "JobRecord",
    "LoopbackService",
    "RemoteControl",
    "SessionRecord",
    "Settings",
    "loopback_process",
]
