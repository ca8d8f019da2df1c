"""Jobs at a service that survive whatever happens to this process, the connection or the session.

prepare -> submit -> journal -> wait -> validate -> retry. A request's key is a digest of what is asked and of its number in
the run; it goes to the service as a tag of the job, and into the journal before the job is submitted. A run that is repeated
from a checkpoint asks the same questions under the same keys, and is given the results that were paid for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import (
    ExecutionError,
    JobTooLongError,
    QDEQError,
    ServiceError,
)
from qiskit_qdeq.execution.account import Account
from qiskit_qdeq.execution.events import Announcer
from qiskit_qdeq.execution.failures import Failure, Kind, failure_of, failure_of_job
from qiskit_qdeq.execution.ibm_client import Client
from qiskit_qdeq.execution.jobs import JobSpec, check_label, content_digest, labelled, spec_of
from qiskit_qdeq.execution.journal import Entry, Journal
from qiskit_qdeq.execution.patience import Patience, Persistence, SessionClosedError

#: Seconds between looks at a job: at first, and after a long wait.
_FIRST_LOOK, _LAST_LOOK = 0.1, 10.0
#: Seconds after which the account's limits and a job's place in the queue are asked for again.
_REFUSAL_AGE, _POSITION_AGE = 60.0, 5.0
#: How often the result of one finished job is read before it counts as unusable.
_READS = 3


class _RepeatError(Exception):
    """A job is over without a usable result, and another may do better."""

    def __init__(self, failure: Failure, executed: bool = False) -> None:
        super().__init__(failure.message)
        self.failure, self.executed = failure, executed


class DurableEstimator:
    """An estimator at a service, with a journal.

    Args:
        primitive: the estimator whose options and backend are used, seen by others as `wrapped`.
        client: the service.
        journal: of the run.
        account: what may be spent; its `spent` becomes the journal's.
        patience: with a service that fails.
        announce: is told what happens.
    """

    def __init__(
        self,
        primitive: Any,
        client: Client,
        journal: Journal,
        account: Account | None = None,
        patience: Patience | None = None,
        announce: Announcer | None = None,
    ) -> None:
        self.wrapped = primitive
        self.client, self.journal, self.account = client, journal, account or Account()
        self.announce = announce or Announcer()
        patience = patience or Patience()
        self._attempts = patience.attempts
        self._try = Persistence(patience, self.announce)
        # What an earlier process submitted may be missing in a journal that was put back or lost.
        self._searching, self._asked, self._recognized = journal.resumed, 0, False
        #: Whether all that was asked so far may have been asked by an earlier process.
        self.replaying = journal.resumed
        self._reserved: Callable[[], Cost] | None = None
        self._paid = False
        self._refusal_asked = float("-inf")
        self.account.spent = journal.spent
        self.restart(0)
        journal.claim()
        for mode, kind in list(journal.open_modes.items()):
            if client.close_left_open(mode, kind):
                journal.closed(mode)
                self.announce("closed", mode, detail="left open by an earlier process")

    def restart(self, position: int) -> None:
        """Number the requests of `position`, such as a training step, from 0."""
        # an earlier process that has got past a position had results of its requests
        if self._asked and not self._recognized:
            self._searching = False
        self._position, self._asked, self._recognized = int(position), 0, False
        self._reserved, self._paid = None, False

    def reserve(self, cost: Callable[[], Cost]) -> None:
        """Make sure that the budget has room for all that is about to be asked, unless an earlier process paid for some.

        Whether it did is known when the first job is asked for.

        Raises:
            BudgetError: if it has not; while an earlier process may have asked, only from `submit_job`.
        """
        if self.replaying:
            self._reserved = cost
        else:
            self.account.check(cost(), "the next step")

    def already_spent(self, cost: Cost) -> None:
        """Begin with this where the run has spent it and its journal is gone."""
        if not self.journal.entries and self.journal.spent == Cost() != cost:
            self.journal.already_spent(cost)
            self._book()

    def interrupt(self) -> None:
        """End any waiting with StoppedError, now or when it begins; safe in a signal handler."""
        self._try.stop()

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> DurableJob:
        """Submit a job, like any estimator."""
        return self.submit_job(spec_of(pubs, precision))

    def submit_job(self, spec: JobSpec, parent: str = "", part: int = 0) -> DurableJob:
        """Submit a job, unless it was submitted before.

        Args:
            spec: the job.
            parent: key of the job that ran too long, of which this is a part.
            part: which one.

        Raises:
            BudgetError: if it would exceed the budget.
            ServiceError: if the service refuses it, or was out of reach for too long.
            StoppedError: after `interrupt`.
            JournalError: if the journal cannot be written.
        """
        if parent:
            key = content_digest([parent, str(part), spec.content])[:32]
        else:
            number = f"{self._position} {self._asked}"
            options = repr(getattr(self.wrapped, "options", ""))
            key = content_digest([spec.content, number, options, self.journal.backend])[:32]
            self._asked += 1
        job = DurableJob(self, spec, key)
        entry = self.journal.entries.get(key)
        self._recognized = self._recognized or entry is not None
        self._paid = self._paid or (entry is not None and entry.state not in ("prepared", "failed"))
        limit = self.journal.too_long
        if entry is None and limit is not None and spec.cost.shots >= limit:
            self.journal.split(key, spec.cost.shots, f"a job of {limit} shots ran too long before")
            self.announce("split", detail=f"{spec.cost.shots:,} shots are too many for one job")
        elif entry is None or entry.state in ("prepared", "failed"):
            self._submit(job)
        return job

    def collect(self, job: DurableJob) -> Any:
        """The result of a job; what fails in a way that may pass is submitted again, a bounded number of times."""
        for attempt in range(self._attempts):
            entry = self._entry(job)
            if entry.state == "split":
                raise JobTooLongError("the job is split", job.key)
            if entry.state in ("prepared", "failed"):
                self._submit(job)
                entry = self._entry(job)
            name = entry.job
            try:
                return self._finish(job, entry)
            except _RepeatError as error:
                failure = error.failure
                self._give_up(job, entry, failure, error.executed)
                if failure.kind is Kind.SESSION:
                    self.client.lifetime.renew(failure.message)
                self.announce("failed", name, detail=f"{failure.message}; submitting it again")
                self._try.sleep(min(2.0**attempt, 30.0) * (attempt > 0))
                last = failure
        raise ServiceError(
            f"{self._attempts} jobs for the same request had no usable result; the last one: {last.message}"
        )

    def _finish(self, job: DurableJob, entry: Entry) -> Any:
        """Wait for the job of `entry`, read its result and check it."""
        finished, broken = entry.state == "finished", None
        try:
            if not finished:
                self._wait(job, entry)
            result = self._read(job, entry.job)
        except (QDEQError, _RepeatError):
            raise
        except Exception as error:
            broken = failure_of(error)
        # raised here and not above: the client's exception, which is not redacted, must not hang on ours
        if broken is not None:
            if broken.kind is not Kind.GONE:
                raise ServiceError(f"job {entry.job}: {broken.message}; it is fetched when the run resumes")
            self.announce("lost", entry.job, detail="the service does not know it any more")
            raise _RepeatError(Failure(Kind.GONE, "the service does not know it any more"), executed=True)
        if finished:
            self.client.forget(entry.job)
            self.announce("fetched", entry.job, cost=entry.cost)
            return result
        cost = self._charged(entry)
        self.client.forget(entry.job)
        self.journal.finished(job.key, cost)
        self._book()
        self.announce("finished", entry.job, cost=cost)
        return result

    def _submit(self, job: DurableJob) -> None:
        """Until there is an id in the journal, or no hope."""
        spec, key, entry = job.spec, job.key, self.journal.entries.get(job.key)
        # In doubt whether the service has it already: the earlier process may have died before it could say.
        doubtful = entry is not None and entry.state == "prepared"
        searching = self._searching and entry is None
        unchecked = doubtful or searching
        if not unchecked:
            self._check(spec.cost)
        if entry is None or entry.state == "failed":
            self.journal.prepare(key, spec.cost)
        tag = f"qdeq:{self.journal.run}:{key}"
        sessions, found, broken = 0, list[str](), None

        def attempt() -> str:
            nonlocal doubtful, searching, unchecked, sessions, found
            if doubtful or searching:
                refused = () if entry is None else entry.refused
                found = [name for name in self.client.find(tag) if name not in refused]
                if found:
                    self._recognized = self._paid = True
                    for surplus in found[1:]:
                        self.client.cancel(surplus)
                    self.announce("notice", found[0], detail="was submitted already; it is not submitted again")
                    return found[0]
                searching = False
            if unchecked:
                self._check(spec.cost)
                unchecked = False
            try:
                return self.client.submit(
                    labelled(job.spec.pubs, job.key), [f"qdeq:{self.journal.run}", tag], spec.precision
                )
            except QDEQError:
                raise
            except Exception as error:
                failure = failure_of(error)
                doubtful = doubtful or failure.kind is Kind.UNCERTAIN
                if failure.kind is Kind.SESSION and self.client.lifetime.renewable:
                    sessions += 1
                    if sessions <= self._attempts:
                        self.client.lifetime.renew(failure.message)
                        # the reason may be that the account has nothing left
                        self._refusal_asked, unchecked = float("-inf"), True
                        raise SessionClosedError(failure.message) from None
                raise

        try:
            name = self._try.call(attempt, "submitting a job")
        except QDEQError:
            raise
        except Exception as error:
            broken = failure_of(error)
        if broken is not None:
            hint = "" if broken.advice or broken.kind is not Kind.HOPELESS else self.client.lifetime.advice
            raise ServiceError(f"the service did not take a job: {broken.message}{f'; {hint}' if hint else ''}")
        self.replaying = self.replaying and bool(found)
        self.journal.submitted(key, name)
        self._book()
        self.announce("submitted", name, cost=spec.cost)

    def _check(self, cost: Cost) -> None:
        if self._reserved is not None and not self._paid:
            self.account.check(self._reserved(), "the next step")
        self._reserved = None
        self.account.check(cost)
        if time.monotonic() - self._refusal_asked <= _REFUSAL_AGE:
            return
        broken = None
        try:
            refusal = self._try.call(self.client.refusal, "asking for the account's usage")
        except QDEQError:
            raise
        except Exception as error:
            broken = failure_of(error)
        if broken is not None:
            raise ServiceError(f"the service does not tell the account's usage: {broken.message}")
        if refusal:
            raise ServiceError(f"{refusal}; the run can be resumed then")
        self._refusal_asked = time.monotonic()

    def _wait(self, job: DurableJob, entry: Entry) -> None:
        """Until the job has ended; raises unless it has a result."""
        pause, asked = _FIRST_LOOK, time.monotonic()
        position: int | None = None
        shown: tuple[str, int | None] = ("", None)
        while True:
            state = self._try.call(lambda: self.client.state(entry.job), f"asking for job {entry.job}")
            if state.final:
                break
            if state.status != "QUEUED":
                position = None
            elif time.monotonic() - asked > _POSITION_AGE:
                position, asked = self.client.position(entry.job), time.monotonic()
            if (state.status, position) != shown:
                shown = (state.status, position)
                self.announce("waiting", entry.job, status=state.status, position=position)
            self._try.sleep(pause)
            pause = min(pause * 1.2, _LAST_LOOK)
        if state.status == "DONE":
            return
        failure = failure_of_job(state.reason, cancelled=state.status == "CANCELLED")
        if failure.kind is Kind.TOO_LONG:
            self.journal.split(job.key, job.spec.cost.shots, failure.message)
            self._book()
            self.announce("split", entry.job, detail=failure.message)
            raise JobTooLongError(f"job {entry.job}: {failure.message}", job.key)
        raise _RepeatError(failure)

    def _read(self, job: DurableJob, name: str) -> Any:
        """The result, read again where what arrived is damaged."""
        complaint = ""
        for read in range(_READS):
            if read:
                self.client.forget(name)
                self._try.sleep(0.5 * read)
            try:
                result = self._try.call(lambda: self.client.result(name), f"reading the result of job {name}")
                job.spec.check(result)
                check_label(result, job.key)
            except (ExecutionError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                if isinstance(error, ServiceError):
                    raise
                # the decoder's own words on a body that is cut or of another job are no more than that
                known = isinstance(error, ExecutionError)
                complaint = str(error) if known else f"its result cannot be decoded ({type(error).__name__})"
                self.announce("notice", name, detail=complaint)
            else:
                return result
        raise _RepeatError(Failure(Kind.TRANSIENT, complaint), executed=True)

    def _give_up(self, job: DurableJob, entry: Entry, failure: Failure, executed: bool) -> None:
        """Book a job that has no usable result; raises where another would have none either."""
        name = entry.job
        # what ended early ran no circuit to its end, whatever the service charges for it
        cost = self._charged(entry) if executed else Cost(qpu_seconds=self.client.charged(name) or 0.0)
        self.client.forget(name)
        self.journal.failed(job.key, failure.message, cost)
        self._book()
        self._refusal_asked = float("-inf")
        if failure.kind is Kind.HOPELESS or (failure.kind is Kind.SESSION and not self.client.lifetime.renewable):
            raise ServiceError(f"job {name}: {failure.message}")

    def _charged(self, entry: Entry) -> Cost:
        """What a job that was executed cost: as predicted, with the QPU seconds charged where they are known."""
        seconds = self.client.charged(entry.job)
        return entry.cost if seconds is None else replace(entry.cost, qpu_seconds=seconds)

    def _entry(self, job: DurableJob) -> Entry:
        return self.journal.entries[job.key]

    def _book(self) -> None:
        self.account.spent = self.journal.spent


class DurableJob:
    """A job of a `DurableEstimator`."""

    def __init__(self, estimator: DurableEstimator, spec: JobSpec, key: str) -> None:
        self._estimator, self.spec, self.key = estimator, spec, key

    def job_id(self) -> str:
        """The id of the last job submitted for it, "" if there is none yet."""
        return self._estimator.journal.entries[self.key].job

    def result(self) -> Any:
        """Wait for the PrimitiveResult.

        Raises:
            JobTooLongError: if it must be split.
            ServiceError: if there will be none.
            StoppedError: after `DurableEstimator.interrupt`.
        """
        return self._estimator.collect(self)
