"""The file of budgets: where it is, and what is said of budgets in which nothing ever counts."""

from pathlib import Path

import pytest

from mandate.activities.files import FileError
from mandate.activities.live_files import FileUnavailable
from mandate.activities.people.directory import People
from mandate.workers.catalog import budgets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.people import PeopleSpec

SHIPPED = Path("deploy/budgets.yaml").absolute()
AGENTS: dict[str, list[str]] = {"refunds": [], "shop": []}
ADDRESS = "'slack:U012AB' is an address of 'Ann@example.com', under whose name their runs count; write that name"
PEOPLE = People(
    PeopleSpec.model_validate({"people": [{"name": "Ann@example.com", "addresses": ["slack:U012AB"]}, {"name": "bob"}]})
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(path: Path) -> Settings:
    return Settings.from_environment({"MANDATE_BUDGETS": str(path)})


def write(path: Path, *entries: str) -> Settings:
    path.write_text(
        "budgets:\n"
        + "".join(f"  - {{id: b{number}, per: day, tokens: 1{entry}}}\n" for number, entry in enumerate(entries))
    )
    return named(path)


def test_without_a_file_there_are_no_budgets(folder: Path) -> None:
    settings = Settings.from_environment({})

    assert (budgets.budgets_path(settings), budgets.read_budgets(settings), budgets.faults_for(settings)) == (
        None, None, (),
    )  # fmt: skip
    assert budgets.warnings_for(settings, agents=AGENTS, people=None) == ()


def test_file_at_its_usual_place_is_read(folder: Path) -> None:
    (folder / "mandate.yaml").touch()
    write(folder / "budgets.yaml", "")

    found = budgets.read_budgets(Settings.from_environment({}))

    assert found is not None
    assert [budget.id for budget in found[0].budgets] == ["b0"]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "nothing"])
def test_what_is_named_must_be_a_file(folder: Path, make) -> None:
    path = folder / "limits.yaml"
    make(path)

    with pytest.raises(FileError) as refused:
        budgets.read_budgets(named(path))

    sentence = f"{path}: is not a file; MANDATE_BUDGETS or mandate.yaml names the file of budgets"
    assert str(refused.value) == sentence
    assert [str(fault) for fault in budgets.faults_for(named(path))] == [sentence]


async def test_worker_sees_a_file_that_is_made_later_and_misses_one_that_was_named(folder: Path) -> None:
    (folder / "mandate.yaml").touch()
    usual = budgets.open_budgets(Settings.from_environment({}))
    missing = budgets.open_budgets(named(folder / "limits.yaml"))

    before = await usual.read()
    write(folder / "budgets.yaml", "")
    after = await usual.read()

    assert before is None
    assert after is not None
    with pytest.raises(FileUnavailable, match=r"^the file of budgets is gone; put .*limits\.yaml back$"):
        await missing.read()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (", agent: refunds", None),
        (", agent: '*'", None),
        (", requester: '*'", None),
        (", requester: ann@example.com", None),
        (
            ", agent: refnds",
            "agent: names the agent 'refnds', which is not here; did you mean 'refunds'? there are refunds, shop",
        ),
        (
            ", requester: bobb",
            "requester: names the requester 'bobb', whom the file of people does not have; did you mean 'bob'?",
        ),
        (", requester: slack:U012AB", f"requester: {ADDRESS}"),
    ],
)
def test_budget_in_which_no_run_counts_is_told(folder: Path, entry: str, says: str | None) -> None:
    settings = write(folder / "limits.yaml", entry)

    warnings = budgets.warnings_for(settings, agents=AGENTS, people=PEOPLE)

    assert [str(warning) for warning in warnings] == (
        [] if says is None else [f"{folder}/limits.yaml:2:35: budgets[0].{says}"]
    )


def test_without_a_file_of_people_any_requester_will_do(folder: Path) -> None:
    settings = write(folder / "limits.yaml", ", requester: bobb")

    assert budgets.warnings_for(settings, agents=AGENTS, people=None) == ()


def test_file_of_the_checkout_has_no_faults() -> None:
    assert budgets.faults_for(named(SHIPPED)) == ()


def test_examples_in_the_file_of_the_checkout_are_valid(folder: Path) -> None:
    _, _, commented = SHIPPED.read_text(encoding="utf-8").partition("budgets: []\n")
    path = folder / "budgets.yaml"
    path.write_text("\n".join(line.removeprefix("# ") for line in commented.splitlines()))

    found = budgets.read_budgets(named(path))

    assert found is not None
    assert [budget.id for budget in found[0].budgets] == ["company", "refunds", "people", "teams"]


def test_schema_names_the_keys_of_a_budget() -> None:
    schema = budgets.budgets_schema()

    assert schema["title"] == "Mandate file of budgets"
    assert isinstance(schema["$defs"], dict)
    assert isinstance(definition := schema["$defs"]["PeriodBudget"], dict)
    assert definition["required"] == ["id", "per"]


def test_budget_of_money_in_which_no_call_can_be_made_is_warned_of(folder: Path) -> None:
    settings = write(folder / "b.yaml", ", cost_usd: '1'", ", cost_usd: '2', agent: shop", "")

    warnings = budgets.warnings_for(settings, agents={"refunds": ["scripted:x"], "shop": []}, people=None)

    (warning,) = warnings
    assert warning.line == 2
    assert warning.message == (
        "limits money, and no price is known for scripted:x of the agent 'refunds': no call of them is sent in a run "
        "that counts here; add 'price' in its 'models', or 'prices'"
    )
