"""Amounts of US dollars in JSON."""

from decimal import Decimal

import pytest

from mandate.workflows.contracts.budget import Amount, Budget
from mandate.workflows.contracts.model import Usage


@pytest.mark.parametrize("written", ["0.0000001", "0.000000001", "2.00", "999999.999999999"])
def test_limit_is_read_again_as_it_is_written(written: str) -> None:
    budget = Budget.model_validate({"cost_usd": written})

    assert budget.model_dump(mode="json")["cost_usd"] == written
    assert Budget.model_validate_json(budget.model_dump_json()) == budget


@pytest.mark.parametrize("record", [Usage, Amount])
def test_sum_has_digits_however_small_it_is(record: type[Usage] | type[Amount]) -> None:
    amount = record(cost_usd=Decimal("1E-10"))

    assert '"cost_usd":"0.0000000001"' in amount.model_dump_json()
    assert record.model_validate_json(amount.model_dump_json()) == amount
