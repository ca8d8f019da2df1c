"""Budgets are read as they are written, and no job exceeds them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import BudgetError, InputError
from qiskit_qdeq.execution.account import Account, Budget

costs = st.builds(
    Cost, st.integers(0, 10**6), st.integers(0, 10**9), st.integers(0, 9), st.integers(0, 9), st.floats(0, 1e6)
)
limits = st.none() | st.integers(0, 10**9)
budgets = st.builds(Budget, limits, limits, st.none() | st.floats(0, 1e6))


@given(limits, limits, st.none() | st.floats(0, 1e6), st.permutations([0, 1, 2]))
def test_a_budget_is_read_in_any_order(circuits, shots, seconds, order):
    parts = [
        "" if circuits is None else f"{circuits} circuits",
        "" if shots is None else f"{shots}shots",
        "" if seconds is None else f"{seconds:.6f} s",
    ]
    text = ",".join(parts[place] for place in order if parts[place])
    if not text:
        with pytest.raises(InputError):
            Budget.parse(text)
        return
    found = Budget.parse(text)
    assert (found.circuits, found.shots) == (circuits, shots)
    assert found.qpu_seconds == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("10min", Budget(qpu_seconds=600)),
        ("1.5 h", Budget(qpu_seconds=5400)),
        ("1e6 shots", Budget(shots=1_000_000)),
        ("1_000 circuit", Budget(circuits=1000)),
        (" 1 shot , 2s ", Budget(shots=1, qpu_seconds=2)),
        ("0s", Budget(qpu_seconds=0)),
    ],
)
def test_units(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "10",
            "s",
            "-1 s",
            "nan s",
            "inf s",
            "1e400 s",
            "1e9999 shots",
            "ten shots",
            "1 day",
            "5 euros",
            "1.2.3 s",
        ),
        *("1s 2 shots", "1s;2 shots", "1s,", "0x10 shots", "１２ shots!", "1.5 circuits", "0.5 shots"),
    ],
)
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(InputError, match="budget"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["1s,2min", "1 shot, 2 shots", "1 circuit,1 circuits"])
def test_an_amount_given_twice_is_refused(text):
    with pytest.raises(InputError, match="twice"):
        Budget.parse(text)


@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_an_input_error(text):
    try:
        found = Budget.parse(text)
    except InputError:
        return
    assert found
    assert all(value is None or 0 <= value < math.inf for value in vars(found).values())


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "5", True])
@pytest.mark.parametrize("name", ["circuits", "shots", "qpu_seconds"])
def test_amounts_that_are_none_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        Budget(**{name: value})


@given(budgets, st.lists(costs, max_size=8))
def test_what_is_booked_after_asking_never_exceeds_a_budget(budget, wanted):
    account = Account(budget)
    total = Cost()
    for cost in wanted:
        fits = all(
            limit is None or getattr(total, name) + getattr(cost, name) <= limit * (1 + 1e-12)
            for name, limit in vars(budget).items()
        )
        if fits:
            account.check(cost)
            account.book(cost)
            total += cost
        else:
            with pytest.raises(BudgetError, match=r"the budget of .* is reached"):
                account.check(cost)
    assert account.spent == total
    for name, left in account.left.items():
        assert left == max(0, getattr(budget, name) - getattr(total, name))
    assert set(account.left) == {name for name, limit in vars(budget).items() if limit is not None}


def test_without_a_budget_everything_is_allowed():
    assert not Budget()
    Account().check(Cost(circuits=10**12, shots=10**15, qpu_seconds=1e9))
    assert Account().left == {}
