"""The file of people: what is read, each fault at its place, and what agents may name of it."""

from pathlib import Path

import pytest

from mandate.activities.documents import Document
from mandate.activities.files import FileError
from mandate.activities.people.directory import Directory, DirectoryUnavailable
from mandate.workers.catalog.agents import read_agent_file
from mandate.workers.catalog.catalog import Loaded
from mandate.workers.catalog.people import faults_for, read_people, warnings_for
from mandate.workers.catalog.policies import PlacedRule
from mandate.workers.settings import Settings
from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent
from mandate.workflows.contracts.policy import Asking, Rule
from tests.support.signing import Issuer

FILE = """\
people:
  - {name: ann@example.com, addresses: [ann@example.com, "slack:U012AB"], groups: [finance, leads]}
  - {name: bob@example.com, groups: [legal]}
groups:
  finance: {description: Approves payments}
  audit: {}
"""


NO_GROUP = "'no spaces' is not a letter or digit followed by up to 63 letters, digits, '_', '.', '@', '/' and '-'"


def settings(tmp_path: Path, text: str | None = FILE, **environment: str) -> Settings:
    if text is not None:
        path = tmp_path / "people.yaml"
        path.write_text(text, encoding="utf-8")
        environment["MANDATE_PEOPLE"] = str(path)
    return Settings.from_environment(environment)


def told(tmp_path: Path, text: str) -> list[tuple[int, str, str, str]]:
    """Line, key, value and message of each fault."""
    with pytest.raises(FileError) as raised:
        read_people(settings(tmp_path, text))
    return [(fault.line, fault.key, fault.value, fault.message) for fault in raised.value.faults]


def test_people_are_found_by_name_and_address_however_they_are_spelt(tmp_path: Path) -> None:
    people = read_people(settings(tmp_path))

    assert people is not None
    found = [people.find(name) for name in ("ann@example.com", " ANN@Example.com", "Slack:u012ab")]
    assert [known.name for known in found if known is not None] == ["ann@example.com"] * 3
    assert people.find("eve@example.com") is None


def test_letters_that_unicode_writes_in_two_ways_are_one_name(tmp_path: Path) -> None:
    people = read_people(settings(tmp_path, "people: [{name: zo\u00eb@example.com}]"))

    assert people is not None
    assert people.find("ZOE\u0308@example.com") is not None


def test_groups_are_those_that_somebody_is_in_or_that_are_described(tmp_path: Path) -> None:
    people = read_people(settings(tmp_path))

    assert people is not None
    assert people.groups == ("audit", "finance", "leads", "legal")
    assert [known.name for known in people.members((), ("FINANCE", "legal"))] == ["ann@example.com", "bob@example.com"]
    assert [known.name for known in people.members(("slack:U012AB",), ("audit",))] == ["ann@example.com"]
    assert len(people.members((), ())) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(0, "", "", "is empty")]),
        ("- ann", [(1, "", "", "is not a mapping with 'people'")]),
        ("groups: {}", [(1, "people", "", "is missing: Who may decide.")]),
        ("people: []", [(1, "people", "", "must not be empty")]),
        (
            "people:\n  - {nam: ann}",
            [
                (2, "people[0].name", "", "is missing: How the person is named in decisions and in the record."),
                (
                    2,
                    "people[0].nam",
                    "'ann'",
                    "is not a key that is known here; did you mean 'name'? allowed are addresses, groups, name",
                ),
            ],
        ),
        (
            "people: [{name: a}]\nteams: {}",
            [(2, "teams", "", "is not a key that is known here; allowed are control, groups, people")],
        ),
        (
            "people: [{name: a}]\ngroups: {x: {about: y}}",
            [(2, "groups.x.about", "'y'", "is not a key that is known here; allowed are description")],
        ),
        ("people:\n  - name: 7", [(2, "people[0].name", "7", "7 is not a text; put it in quotes")]),
        (
            "people: [{name: ' ann'}]",
            [(1, "people[0].name", "' ann'", "' ann' is not a name of 1 to 200 characters without spaces around it")],
        ),
        (
            "people: [{name: a, groups: [no spaces]}]",
            [
                (
                    1,
                    "people[0].groups[0]",
                    "'no spaces'",
                    NO_GROUP,
                )
            ],
        ),
        (
            "people: [{name: a}]\ngroups: {no spaces: {}}",
            [
                (
                    2,
                    "groups['no spaces']",
                    "'no spaces'",
                    NO_GROUP,
                )
            ],
        ),
        (
            'people: [{name: "a\\u200bnn"}]',
            [
                (
                    1,
                    "people[0].name",
                    "'a\\u200bnn'",
                    "'a\\u200bnn': holds characters that cannot be seen, so that two names would look the same",
                )
            ],
        ),
        (
            "people: [{name: 'Agent:refunds'}]",
            [
                (
                    1,
                    "people[0].name",
                    "'Agent:refunds'",
                    "'Agent:refunds': names that begin with 'agent:' are agents, which decide nothing",
                )
            ],
        ),
        ("people: [{name: a, groups: [x, X]}]", [(1, "people[0].groups[1]", "", "'X' is given twice")]),
        ("people: [{name: a, addresses: [b, B]}]", [(1, "people[0].addresses[1]", "", "'B' is given twice")]),
        ("people: [{name: a}]\ngroups: {x: {}, X: {}}", [(2, "groups.X", "", "'X' is given twice")]),
        (
            "people:\n  - {name: Ann}\n  - {name: ann}\n  - {name: bob, addresses: [ANN]}",
            [
                (3, "people[1].name", "", "'ann' is people[0] already"),
                (4, "people[2].addresses[0]", "", "'ANN' is people[0] already"),
            ],
        ),
        (
            "people: [{name: a}]\npeople: [{name: b}]",
            [(2, "people", "", "the key 'people' is given twice, in lines 1 and 2")],
        ),
    ],
)
def test_faults(tmp_path: Path, text: str, expected: list[tuple[int, str, str, str]]) -> None:
    assert told(tmp_path, text) == expected


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"

    with pytest.raises(FileError) as raised:
        read_people(settings(tmp_path, None, MANDATE_PEOPLE=str(path)))

    assert str(raised.value) == f"{path}: is not a file; MANDATE_PEOPLE or mandate.yaml names the file of people"


def test_without_a_file_nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert read_people(settings(tmp_path, None)) is None


def test_the_example_that_is_shipped_is_valid() -> None:
    people = read_people(Settings.from_environment({"MANDATE_PEOPLE": "deploy/people.yaml"}))

    assert people is not None
    assert {"finance", "legal", "operations"} <= set(people.groups)


MORE = "`mandate validate {}` tells more"
NOT_UTF_8 = "is not UTF-8 text: byte 0xe9 cannot be read; save the file as UTF-8"


class TestDirectory:
    async def test_a_change_is_seen_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "people.yaml"
        path.write_text("people: [{name: ann}]")
        directory = Directory(path)
        before = await directory.people()

        path.write_text("people: [{name: bob}]")
        after = await directory.people()

        assert before is not None
        assert after is not None
        assert (before.find("ann") is not None, after.find("ann") is not None) == (True, False)

    async def test_an_unchanged_file_is_read_once(self, tmp_path: Path) -> None:
        path = tmp_path / "people.yaml"
        path.write_text("people: [{name: ann}]")
        directory = Directory(path)

        assert await directory.people() is await directory.people()

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"people: [{name: ann}", f"the file of people has a fault in line 1; {MORE}"),
            (b"people:\n  - {nam: ann}", f"the file of people has a fault in line 2; {MORE}"),
            (b"people: [{name: ann}]\nteams: {}", f"the file of people has a fault in line 2; {MORE}"),
            (
                b"people:\n  - {name: Jos\xe9}",
                f"the file of people cannot be read: line 2, column 15: {NOT_UTF_8}; {MORE}",
            ),
            (b"", f"the file of people has a fault; {MORE}"),
            (None, "the file of people is gone; put {} back"),
        ],
    )
    async def test_a_file_that_breaks_says_so_until_it_is_mended(
        self, tmp_path: Path, content: bytes | None, says: str
    ) -> None:
        path = tmp_path / "people.yaml"
        path.write_text("people: [{name: ann}]")
        directory = Directory(path)
        await directory.people()

        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DirectoryUnavailable) as broken:
            await directory.people()
        path.write_text("people: [{name: ann}]")
        mended = await directory.people()

        assert str(broken.value) == says.format(path)
        assert mended is not None

    async def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DirectoryUnavailable, match="the file of people cannot be read: Is a directory"):
            await Directory(tmp_path).people()

    async def test_a_file_that_never_was_means_that_nobody_is_known(self, tmp_path: Path) -> None:
        path = tmp_path / "people.yaml"

        assert await Directory(None).people() is None
        assert await Directory(path).people() is None
        with pytest.raises(DirectoryUnavailable):
            await Directory(path, needed=True).people()


def loaded(tmp_path: Path, text: str) -> Loaded:
    """An agent with this policy in its file."""
    path = tmp_path / "refunds.yaml"
    path.write_text(f"name: refunds\ninstructions: Help.\nmodels: [scripted:x]\n{text}", encoding="utf-8")
    file = read_agent_file(path)
    return of(file.spec, file.document, path)


def of(spec: AgentSpec, document: Document, path: Path | None = None) -> Loaded:
    pinned = PinnedAgent(
        name=spec.name, instructions="i", models=("scripted:x",), tools=(), policy=spec.policy,
        people=spec.people, requester=spec.requester,
        attempts=3, budget=spec.budget, output_schema=None, max_output_tokens=10,
    )  # fmt: skip
    rules = tuple(PlacedRule(rule, document, ("policy", index)) for index, rule in enumerate(spec.policy))
    return Loaded(pinned, "d" * 43, b"", path, document, rules)


def rule(text: str) -> str:
    return f"policy:\n  - {{id: large, match: {{}}, verdict: ask, {text}}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rule("approvers: {groups: [finance, Legal, audit], users: [bob@example.com, 'SLACK:u012ab']}"), []),
        (
            rule("approvers: {groups: [finanze]}"),
            [
                (
                    5,
                    "policy[0].approvers.groups[0]",
                    (
                        "rule 'large' names the group 'finanze', which the file of people does not have;"
                        " did you mean 'finance'? it has audit, finance, leads, legal"
                    ),
                )
            ],
        ),
        (
            rule("approvers: {users: [eve@somewhere.org]}"),
            [
                (
                    5,
                    "policy[0].approvers.users[0]",
                    (
                        "rule 'large' names the user 'eve@somewhere.org', whom the file of people does not have;"
                        " it has ann@example.com, bob@example.com"
                    ),
                )
            ],
        ),
        (
            rule("on_expiry: {escalate: {groups: [bosses]}}"),
            [
                (
                    5,
                    "policy[0].on_expiry.escalate.groups[0]",
                    (
                        "rule 'large' names the group 'bosses', which the file of people does not have;"
                        " it has audit, finance, leads, legal"
                    ),
                )
            ],
        ),
        (
            "people:\n  approvers: {groups: [bosses]}\n",
            [
                (
                    5,
                    "people.approvers.groups[0]",
                    (
                        "names the group 'bosses', which the file of people does not have;"
                        " it has audit, finance, leads, legal"
                    ),
                )
            ],
        ),
    ],
)
def test_what_an_agent_names_must_be_in_the_file(
    tmp_path: Path, text: str, expected: list[tuple[int, str, str]]
) -> None:
    faults = faults_for([loaded(tmp_path, text)], settings(tmp_path))

    assert [(fault.line, fault.key, fault.message) for fault in faults] == expected


def test_without_a_file_users_may_be_named_and_groups_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = loaded(tmp_path, rule("approvers: {users: [ann], groups: [finance]}"))
    monkeypatch.chdir(tmp_path)

    faults = faults_for([agent], settings(tmp_path, None))

    assert [fault.message for fault in faults] == [
        (
            "rule 'large' names the group 'finance', and there is no file of people to say who is in it;"
            " MANDATE_PEOPLE names that file"
        )
    ]


def test_an_agent_made_in_code_is_named(tmp_path: Path) -> None:
    asks = Rule.model_validate({"id": "r", "match": {}, "verdict": "ask", "approvers": {"groups": ["x"]}})
    spec = AgentSpec(name="made", instructions="i", models=("scripted:x",), policy=(asks,), people=Asking())

    (fault,) = faults_for([of(spec, Document("agent 'made'", None, (), {}))], settings(tmp_path))

    assert str(fault).startswith("agent 'made': policy[0].approvers.groups[0]: rule 'r' names the group 'x'")


def test_a_broken_file_is_all_that_is_told(tmp_path: Path) -> None:
    agent = loaded(tmp_path, rule("approvers: {groups: [nobody]}"))

    faults = faults_for([agent], settings(tmp_path, "people: []"))

    assert [fault.message for fault in faults] == ["must not be empty"]


NO_KEYS = "rule 'large' wants signed decisions, and MANDATE_JWKS names no keys: none will count"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rule("approvers: {groups: [finance]}"), []),
        (
            rule("approvers: {groups: [audit]}"),
            ["rule 'large' wants somebody to approve, and nobody in the file of people may"],
        ),
        (
            rule("approvers: {groups: [finance, legal]}, quorum: 3"),
            ["rule 'large' wants 3 people to approve, and only 2 in the file of people may"],
        ),
        ("people: {quorum: 3}\n", ["wants 3 people to approve, and only 2 in the file of people may"]),
        (
            rule("signature: required"),
            [
                f"{NO_KEYS}, and no run can begin",
            ],
        ),
        (
            rule("signature: required") + "requester: anyone\n",
            [
                NO_KEYS,
                "is 'anyone', and decisions are signed: who asks may sign for what they asked for themselves",
            ],
        ),
        ("requester: anyone\n", []),
        ("requester: required\n", []),
    ],
)
def test_requests_that_could_never_be_approved_are_warned_of(tmp_path: Path, text: str, expected: list[str]) -> None:
    agent = loaded(tmp_path, text)

    assert [fault.message for fault in warnings_for([agent], settings(tmp_path))] == expected


def test_a_requester_whom_nobody_can_know_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    agent = loaded(tmp_path, "requester: required\n")

    assert [fault.message for fault in warnings_for([agent], settings(tmp_path, None))] == [
        "is 'required', and there is no file of people (MANDATE_PEOPLE): any name will do"
    ]


class TestKeys:
    def test_a_usable_key_set_is_no_fault(self, tmp_path: Path) -> None:
        keys = Issuer().write(tmp_path / "keys.json")

        assert faults_for([], settings(tmp_path, MANDATE_JWKS=str(keys), MANDATE_TOKEN_ISSUER="corp")) == ()

    def test_an_issuer_must_be_named(self, tmp_path: Path) -> None:
        keys = Issuer().write(tmp_path / "keys.json")

        (fault,) = faults_for([], settings(tmp_path, MANDATE_JWKS=str(keys)))

        assert str(fault) == (
            f"{keys}: MANDATE_JWKS is set and MANDATE_TOKEN_ISSUER is not: who must signed decisions be from?"
        )

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "the key set cannot be read: No such file or directory"),
            ("{", "the key set is not JSON: line 1, column 2: Expecting property name enclosed in double quotes"),
            ("[]", "the key set has no list 'keys'"),
            ('{"keys": []}', "the key set has no key for ES256: 'kty' EC, 'crv' P-256, with a 'kid'"),
            (
                '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "x": "AA", "y": "AA"}]}',
                "keys[0] of the key set is no point of the curve P-256",
            ),
            (
                '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "x": "AA", "y": "AA", "d": "AA"}]}',
                "keys[0] of the key set is a private key; only public keys belong there",
            ),
        ],
    )
    def test_a_key_set_that_cannot_be_used_stops_the_start(
        self, tmp_path: Path, content: str | None, says: str
    ) -> None:
        path = tmp_path / "keys.json"
        if content is not None:
            path.write_text(content)

        (fault,) = faults_for([], settings(tmp_path, MANDATE_JWKS=str(path), MANDATE_TOKEN_ISSUER="corp"))

        assert str(fault) == f"{path}: MANDATE_JWKS: {says}"


async def test_who_controls_must_be_in_the_file(tmp_path: Path) -> None:
    text = """\
people:
  - {name: ann@example.com, addresses: ["slack:U1"], groups: [ops]}
groups: {audit: {}}
control:
  users: [ANN@example.com, "slack:u1", bob@example.com]
  groups: [OPS, audit, opps]
"""

    faults = faults_for((), settings(tmp_path, text))

    user = "names the user 'bob@example.com', whom this file does not have; did you mean 'ann@example.com'?"
    group = "names the group 'opps', which this file does not have; did you mean 'ops'?"
    assert [(fault.line, fault.key, fault.message) for fault in faults] == [
        (5, "control.users[2]", f"{user} it has ann@example.com"),
        (6, "control.groups[2]", f"{group} it has audit, ops"),
    ]
    assert told(tmp_path, "people: [{name: a}]\ncontrol: {}") == [
        (2, "control", "", "names nobody; give 'users', 'groups' or both")
    ]
