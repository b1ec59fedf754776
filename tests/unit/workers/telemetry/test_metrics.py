"""Labels of metrics: of a bounded number of values."""

from mandate.workers.telemetry.metrics import MOST_VALUES, OTHER, Labels


def test_a_label_has_so_many_values_and_no_more() -> None:
    labels = Labels()
    given = [labels.bound({"agent": f"plan-{number}", "kind": "approval"}) for number in range(MOST_VALUES + 50)]

    assert len({one["agent"] for one in given}) == MOST_VALUES + 1
    assert given[-1] == {"agent": OTHER, "kind": "approval"}
    assert labels.bound({"agent": "plan-7"}) == {"agent": "plan-7"}
