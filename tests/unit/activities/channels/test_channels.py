"""Channels: what their file may say, who is told what, and texts that hold inside a shell, JSON and Slack."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from mandate.activities.channels import slack_blocks
from mandate.activities.channels.base import Parcel, is_wanted, make_key
from mandate.activities.channels.http_post import HttpPost
from mandate.activities.channels.slack import APART, SlackSender
from mandate.activities.channels.webhook import build_body, sign
from mandate.activities.files import FileError
from mandate.workers.catalog.channels import LOG_ALONE, read_channels
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.channels import ChannelsFile, LogChannel, find_address_fault
from mandate.workflows.contracts.request import ANYONE, Notice, Request
from mandate.workflows.rules import commands as rules_commands
from tests.support.notices import approval, need, notice, question, run_of
from tests.support.people import bare_request

SECRETS = Secrets(
    {"HOOK": "s3cr3t", "SLACK": "https://hooks.slack.example/services/T0/B0/x", "BAD": "http://x.example"}
)

FULL = """\
channels:
  - {name: log, kind: log}
  - name: oncall
    kind: webhook
    url: https://hooks.example.com/mandate
    secret: ${secret:HOOK}
    kinds: [approval]
    occasions: [asked, escalated]
  - {name: finance, kind: slack, url: "${secret:SLACK}", groups: [finance]}
"""


def read(text: str, tmp_path: Path) -> ChannelsFile:
    path = tmp_path / "channels.yaml"
    path.write_text(text)
    return read_channels(path, SECRETS)


def faults_of(text: str, tmp_path: Path) -> list[str]:
    with pytest.raises(FileError) as refused:
        read(text, tmp_path)
    return [line.removeprefix(f"{tmp_path / 'channels.yaml'}:") for line in str(refused.value).splitlines()]


def parcel(*notices: Notice, workflow_id: str = "shop-7f3a", namespace: str = "default") -> Parcel:
    run = run_of(*notices, workflow_id=workflow_id)
    return Parcel(run, namespace, notices, make_key(run.run_id, notices, "c"))


def test_file_is_read_whole(tmp_path: Path) -> None:
    found = read(FULL, tmp_path)

    assert [(one.name, one.kind) for one in found.channels] == [
        ("log", "log"), ("oncall", "webhook"), ("finance", "slack"),
    ]  # fmt: skip
    assert found.channels[1].occasions == ("asked", "escalated")
    assert found.channels[2].groups == ("finance",)


def test_example_file_is_valid() -> None:
    secrets = Secrets({"ONCALL_WEBHOOK": "s3cr3t", "FINANCE_SLACK_URL": "https://hooks.slack.com/services/T/B/x"})

    found = read_channels(Path("deploy/channels.example.yaml"), secrets)

    assert [one.kind for one in found.channels] == ["log", "webhook", "slack"]


def test_without_a_file_the_log_is_the_only_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert read_channels(None, SECRETS) == LOG_ALONE


def test_default_file_is_used_when_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/channels.yaml").write_text("channels: [{name: mine, kind: log}]")
    monkeypatch.chdir(tmp_path)

    assert read_channels(None, SECRETS).channels[0].name == "mine"


def test_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileError) as refused:
        read_channels(tmp_path / "none.yaml", SECRETS)

    assert (
        str(refused.value)
        == f"{tmp_path}/none.yaml: is not a file; MANDATE_CHANNELS or mandate.yaml names the file of channels"
    )


@pytest.mark.parametrize(("given", "expected"), [(None, None), ("", None), ("a/b.yaml", Path("a/b.yaml"))])
def test_setting_names_the_file(given: str | None, expected: Path | None) -> None:
    environment = {} if given is None else {"MANDATE_CHANNELS": given}

    assert Settings.from_environment(environment).channels == expected


HOOK = "channels:\n  - name: a\n    kind: webhook\n    url: {url}\n    secret: {secret}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", ["1:1: is not a mapping with 'channels'"]),
        ("channels: []", ["1:1: channels: must not be empty"]),
        ("chanels: []", [
            "1:1: chanels: is not a key that is known here; did you mean 'channels'? allowed are channels",
            "1:1: channels: is missing: All of them hear of every request that their filters let through.",
        ]),
        ("channels: [{name: a}]", [
            "1:12: channels[0]: has no key 'kind'; it is one of log, webhook, slack"
        ]),
        ("channels: [{name: a, kind: email}]", [
            "1:22: channels[0].kind: 'email' is not one of log, webhook, slack"
        ]),
        ("channels: [{kind: log}]", ["1:12: channels[0].name: is missing: Names the channel in logs and failures."]),
        ("channels:\n  - {name: a, kind: log}\n  - {name: a, kind: log}", [
            "3:6: channels[1].name: 'a' is the name of channels[0] too; each channel has its own"
        ]),
        ("channels: [{name: a, kind: log, group: [x]}]", [
            ("1:33: channels[0].group: is not a key that is known here; did you mean 'groups'? "
            "allowed are groups, kind, kinds, name, occasions")
        ]),
        ("channels: [{name: a, kind: log, kinds: [payment]}]", [
            "1:41: channels[0].kinds[0]: 'payment' is not one of approval, question, escalation, outcome, budget"
        ]),
        ("channels: [{name: a, kind: log, occasions: []}]", ["1:33: channels[0].occasions: must not be empty"]),
        ("channels: [{name: a, kind: slack, url: 'https://hooks.slack.com/services/T/B/t0ps3cret'}]", [
            "1:35: channels[0].url: is a secret and does not stand in a file: write '${secret:NAME}'"
        ]),
        (HOOK.format(url="http://hooks.example.com/t0ps3cret", secret="t0ps3cret"), [
            ("4:5: channels[0].url: must begin with https://, or with http:// when the host is localhost or a loopback "
            "address"),
            "5:5: channels[0].secret: is a secret and does not stand in a file: write '${secret:NAME}'",
        ]),
        (HOOK.format(url="https://ann:t0ps3cret@hooks.example.com", secret="${secret:HOOK}"), [
            "4:5: channels[0].url: must not hold a user and a password"
        ]),
        (HOOK.format(url="https://x.example/${secret:NONE}", secret="${secret:GONE}"), [
            "4:5: channels[0].url: secret 'NONE' is not in the environment, and there is no folder of secrets",
            "5:5: channels[0].secret: secret 'GONE' is not in the environment, and there is no folder of secrets",
        ]),
        (HOOK.format(url="${secret:BAD}", secret="${secret:HOOK}"), [
            ("4:5: channels[0].url: with its secrets in place, it must begin with https://, or with http:// when the "
            "host is localhost or a loopback address")
        ]),
        (HOOK.format(url="https://x.example", secret="${secret:}"), [
            ("5:5: channels[0].secret: a secret is written '${secret:NAME}', its name of letters, digits, '_', '.' and "
            "'-'")
        ]),
        (HOOK.format(url="[t0ps3cret]", secret="7"), [
            "4:5: channels[0].url: is not a text",
            "5:5: channels[0].secret: is not a text; put it in quotes",
        ]),
    ],
)  # fmt: skip
def test_faults_name_line_key_and_what_is_allowed(text: str, expected: list[str], tmp_path: Path) -> None:
    found = faults_of(text, tmp_path)

    assert found == expected
    assert "t0ps3cret" not in "".join(found)


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://hooks.example.com/a?b=c", True),
        ("http://127.0.0.1:8080/a", True),
        ("http://[::1]:8080/a", True),
        ("http://localhost/a", True),
        ("http://hooks.example.com/a", False),
        ("http://127.0.0.1.example.com/a", False),
        ("http://10.0.0.1/a", False),
        ("ftp://hooks.example.com/a", False),
        ("https:///a", False),
        ("https://x.example:port/a", False),
        ("http://127.0.0.1\\@x.example/a", False),
        ("https://x.example/a\r\nX: y", False),
        ("hooks.example.com", False),
        ("", False),
    ],
)
def test_addresses_are_https_or_loopback(url: str, is_allowed: bool) -> None:
    assert (find_address_fault(url) is None) == is_allowed


@pytest.mark.parametrize(
    ("filters", "told", "expected"),
    [
        ({}, notice(approval()), True),
        ({"kinds": ("question",)}, notice(approval()), False),
        ({"kinds": ("question",)}, notice(question()), True),
        ({"occasions": ("asked",)}, notice(approval(), "reminder", 1), False),
        ({"occasions": ("asked", "reminder")}, notice(approval(), "reminder", 1), True),
        ({"groups": ("finance",)}, notice(approval(3, need("finance"))), True),
        ({"groups": ("finance",)}, notice(approval(3, need("legal"))), False),
        ({"groups": ("finance",)}, notice(approval(3, need("legal"), need("finance"))), True),
        ({"groups": ("finance",)}, notice(approval(3, need(users=("finance",)))), False),
        ({"groups": ("finance",)}, notice(approval(3, need())), False),
        ({"groups": (ANYONE,)}, notice(approval(3, need())), True),
        ({"groups": (ANYONE,)}, notice(approval(3, need("finance"))), False),
        (
            {"groups": ("finance",)},
            notice(approval(3, need("finance").model_copy(update={"approved_by": ("bob",)}), need("legal"))),
            False,
        ),
    ],
)
def test_filters(filters: dict[str, tuple[str, ...]], told: Notice, expected: bool) -> None:
    channel = LogChannel.model_validate({"name": "c", "kind": "log", **filters})

    assert is_wanted(channel, told) == expected


def test_each_message_has_a_key_of_its_own() -> None:
    first, second = approval(1), approval(2)
    notices = [
        (notice(first),), (notice(second),), (notice(first, "reminder", 1),), (notice(first, "reminder", 2),),
        (notice(first, "escalated", 1),), (notice(first), notice(second)),
    ]  # fmt: skip
    keys = [make_key(run, told, channel) for told in notices for run in ("a", "b") for channel in ("x", "y")]

    assert len(set(keys)) == len(keys) == 24
    assert make_key("a", [notice(first)], "x") == keys[0]
    assert {len(key) for key in keys} == {43}


@pytest.mark.parametrize(
    ("secret", "at", "body", "expected"),
    [
        # echo -n '1793610000.{"a":1}' | openssl dgst -sha256 -hmac s3cr3t
        ("s3cr3t", 1793610000, b'{"a":1}', "6afb502f861ae54f40a0e8054bc014323ddc9457752dc0a0fedfc85aaa43f65d"),
        ("é", 0, b"", "2bf05e82a6ac998375212a97918fe908c72232952e551a20b7bf0217b6e0025d"),
    ],
)
def test_signature_vectors(secret: str, at: int, body: bytes, expected: str) -> None:
    assert sign(secret, at, body) == f"t={at},v1={expected}"


def test_webhook_body_of_an_approval() -> None:
    request = approval()
    target = "shop-7f3a:r3"

    body = build_body(parcel(notice(request, "reminder", 2)), notice(request, "reminder", 2))

    assert body == {
        "version": 1,
        "occasion": "reminder",
        "number": 2,
        "namespace": "default",
        "workflow_id": "shop-7f3a",
        "run_id": "first-run",
        "agent": "shop",
        "requester": "ann@example.com",
        "labels": {"team": "support"},
        "request": {
            "id": "r3",
            "kind": "approval",
            "digest": request.digest,
            "title": "issue_refund order=81 amount=120",
            "tool": "issue_refund",
            "arguments": {"order": "81", "amount": 120.0},
            "question": None,
            "options": [],
            "reason": "refunds from 100 need finance",
            "effect": "keyed",
            "risk": 0.4,
            "tainted": False,
            "choices": ["approve", "reject"],
            "evidence": [],
            "waits_for": ["finance"],
            "needs": [
                {
                    "rule": "large",
                    "groups": ["finance"],
                    "users": [],
                    "quorum": 1,
                    "approved_by": [],
                    "signature": False,
                    "expires_at": "2026-11-03T09:00:00Z",
                }
            ],
            "requested_at": "2026-11-02T09:00:00Z",
            "expires_at": "2026-11-03T09:00:00Z",
        },
        "answer": {
            "mandate": {"approve": f"mandate approve {target}", "reject": f"mandate reject {target}"},
            "temporal": {
                choice: "temporal workflow update execute --workflow-id shop-7f3a --name decide --input "
                f'\'{{"request": "r3", "digest": "{request.digest}", "choice": "{choice}", "by": "<your name>"}}\''
                for choice in ("approve", "reject")
            },
        },
    }


@pytest.mark.parametrize(
    ("workflow_id", "request_", "options", "expected"),
    [
        ("shop-7f3a", approval(), {}, ["mandate approve shop-7f3a:r3", "mandate reject shop-7f3a:r3"]),
        (
            "shop/c1", question(), {},
            ["mandate decide shop/c1:r4 --choice answer --value '<your answer>'", "mandate reject shop/c1:r4"],
        ),
        (
            "a b", approval(), {"program": "temporal agent"},
            ["temporal agent approve 'a b:r3'", "temporal agent reject 'a b:r3'"],
        ),
        (
            "-x", approval(), {"namespace": "prod"},
            ["mandate approve --namespace prod -- -x:r3", "mandate reject --namespace prod -- -x:r3"],
        ),
        (
            "a", approval(3, need("finance", signature=True)), {},
            [
                "mandate approve a:r3 --token-command '<command that prints a token>'",
                "mandate reject a:r3 --token-command '<command that prints a token>'",
            ],
        ),
    ],
)  # fmt: skip
def test_our_commands(workflow_id: str, request_: Request, options: dict[str, str], expected: list[str]) -> None:
    assert [way.mandate for way in rules_commands.list_ways(workflow_id, request_, **options)] == expected


def test_commands_are_labelled_and_ours_come_first() -> None:
    found = rules_commands.list_commands("shop-7f3a", question(), "temporal agent")

    assert [label for label, _ in found] == [
        "answer", "reject", "answer, with Temporal's CLI", "reject, with Temporal's CLI",
    ]  # fmt: skip
    assert found[0][1].startswith("temporal agent decide ")


@pytest.mark.parametrize(
    "workflow_id",
    [
        "shop-7f3a",
        "a b",
        "it's",
        '"',
        "$(id)",
        "`id`",
        "a;id",
        "x\ny",
        "\x1b[31m",
        "a\\b",
        "\u202etxt",
        "é",
        "a'`'b",
        "-x",
        "😀\u2028",
    ],
)
def test_a_shell_reads_back_what_was_meant(workflow_id: str) -> None:
    request = approval(3, need("finance", signature=True))
    (way, _) = rules_commands.list_ways(workflow_id, request, namespace="prod")
    script = 'mandate() { printf "%s\\0" "$@"; }; temporal() { printf "%s\\0" "$@"; }\n'

    def words(command: str) -> list[str]:
        ran = subprocess.run(["bash", "-c", script + command], capture_output=True, check=True)
        return ran.stdout.decode().split("\0")[:-1]

    assert f"{workflow_id}:r3" in words(way.mandate)
    given = words(way.temporal)
    assert given[:5] == ["workflow", "update", "execute", "--workflow-id", workflow_id]
    assert json.loads(given[given.index("--input") + 1]) == {
        "request": "r3", "digest": request.digest, "choice": "approve", "by": "<your name>", "token": "<signed token>",
    }  # fmt: skip
    assert way.mandate.isprintable()
    assert "`" not in way.mandate + way.temporal


def texts_of(message: JsonObject) -> list[tuple[str, int]]:
    """Every text of a message with its limit."""
    found: list[tuple[str, int]] = []
    blocks = message["blocks"]
    assert isinstance(blocks, list)
    for block in blocks:
        assert isinstance(block, dict)
        limit = 150 if block["type"] == "header" else 3000
        if "text" in block:
            found.append((block["text"]["text"], limit))  # type: ignore[index,call-overload,arg-type]
        fields = block.get("fields", [])
        assert isinstance(fields, list)
        assert len(fields) <= 10
        found += [(field["text"], 2000) for field in fields]  # type: ignore[index,call-overload,misc]
    return found


def test_slack_message_of_an_approval() -> None:
    told = notice(approval(), "reminder", 1)

    message = slack_blocks.build_message(parcel(told))

    assert message["text"] == "Reminder: Approval wanted: issue_refund order=81 amount=120 (shop, r3)"
    assert [text for text, _ in texts_of(message)] == [
        "Reminder: Approval wanted: issue_refund order=81 amount=120",
        "*Agent*\nshop",
        "*Requester*\nann@example.com",
        "*Waits for*\nfinance",
        "*Why*\nrefunds from 100 need finance (rule large)",
        "*Risk*\n0.4, effect keyed",
        "*Request*\nr3 of shop-7f3a",
        "*Expires*\n<!date^1793696400^{date_short_pretty} {time}|2026-11-03 09:00 UTC>",
        '*issue_refund*\n```{\n  "order": "81",\n  "amount": 120.0\n}```',
        "*To answer*",
        "```mandate approve shop-7f3a:r3```",
        "```mandate reject shop-7f3a:r3```",
        (
            "```temporal workflow update execute --workflow-id shop-7f3a --name decide --input '"
            f'{{"request": "r3", "digest": "{told.request.digest}", "choice": "approve", '
            '"by": "&lt;your name&gt;"}\'```'
        ),
    ]


def over_budget() -> Request:
    return bare_request("budget").model_copy(
        update={
            "title": "the limit of $2.00 is used up: raise it?",
            "options": ('{"cost_usd":"4.00"}',),
            "needs": (need(),),
            "evidence": ("spent so far: $1.9100, 80,000 tokens", "the next step would take up to $0.2000"),
        }
    )


def test_notices_of_a_budget_tell_what_was_spent_and_how_it_is_raised() -> None:
    told = notice(over_budget())

    message, body = slack_blocks.build_message(parcel(told)), build_body(parcel(told), told)

    texts = [text for text, _ in texts_of(message)]
    assert texts[0] == "About a budget: the limit of $2.00 is used up: raise it?"
    assert "spent so far: $1.9100, 80,000 tokens\nthe next step would take up to $0.2000" in texts
    command = """mandate decide shop-7f3a:r1 --choice raise --value '{"cost_usd":"4.00"}'"""
    assert f"```{command}```" in texts
    assert body["answer"]["mandate"]["raise"] == command  # type: ignore[index,call-overload]
    assert body["request"]["evidence"] == list(told.request.evidence)  # type: ignore[index,call-overload]


def test_slack_reads_nothing_of_an_agent_as_markup() -> None:
    evil = "<!channel> & <https://x.example|ok>\n*Approved*\u202e```"
    request = approval(3, title=evil, reason=evil, arguments={"<!here>": evil})

    message = slack_blocks.build_message(parcel(notice(request)))

    for block in message["blocks"]:  # type: ignore[union-attr]
        for part in [block.get("text"), *block.get("fields", [])]:  # type: ignore[union-attr,misc]
            if part is not None and part["type"] == "mrkdwn":
                assert "<" not in part["text"].replace("<!date^", "")
                assert part["text"].count("```") in {0, 2}
                assert part["verbatim"] is True
    assert "\u202e" not in json.dumps(message, ensure_ascii=False)
    texts = [text for text, _ in texts_of(message)]
    assert "*Why*\n&lt;!channel&gt; &amp; &lt;https://x.example|ok&gt; *Approved*\ufffd''' (rule large)" in texts


@pytest.mark.parametrize(
    "request_",
    [
        approval(title="<&>" * 53, reason="&" * 5000, arguments={"a": "<" * 5000}),
        approval(arguments={f"k{number}": "x" * 200 for number in range(200)}),
        approval(3, *(need(f"group-{number}", rule=f"rule-{number}") for number in range(60))),
        question(text="&\n" * 4000, options=tuple("o" * 200 for _ in range(50))),
    ],
)
def test_slack_limits_hold(request_: Request) -> None:
    for told in (parcel(notice(request_)), parcel(notice(request_), workflow_id="&" * 1000)):
        message = slack_blocks.build_message(told)

        assert all(0 < len(text) <= limit for text, limit in texts_of(message))
        assert len(message["blocks"]) <= 50  # type: ignore[arg-type]
        assert len(json.dumps(message["blocks"], ensure_ascii=False)) <= 13_000


def test_slack_never_shows_half_a_command() -> None:
    message = slack_blocks.build_message(parcel(notice(approval()), workflow_id="&" * 1000))

    commands = [text for text, _ in texts_of(message) if text.startswith("```mandate")]
    assert commands == ["```mandate inbox```"]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("a<b>&c", 20, "a&lt;b&gt;&amp;c"),
        ("a<b", 6, "a&lt;b"),
        ("a<bc", 6, "a&lt;…"),
        ("a<<b", 6, "a&lt;…"),
        ("<<", 4, "…"),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
    ],
)
def test_slack_escapes_are_never_cut_in_two(text: str, limit: int, expected: str) -> None:
    found = slack_blocks.escape(text, limit)

    assert found == expected
    assert len(found) <= limit


def test_many_notices_share_one_slack_message() -> None:
    notices = tuple(notice(approval(number, title=f"refund {number} <&>")) for number in range(1, 201))
    sender = SlackSender(HttpPost(), str, url="")

    assert [len(bundle) for bundle in sender.bundle(notices[:APART])] == [1] * APART
    (together,) = sender.bundle(notices)
    message = slack_blocks.build_message(parcel(*together))

    assert message["text"] == "200 requests of shop"
    texts = [text for text, _ in texts_of(message)]
    assert "• r1 refund 1 &lt;&amp;&gt;" in texts[5]
    assert texts[7].endswith("\nand 180 more")
    assert texts[-1] == "```mandate inbox```"
    assert all(0 < len(text) <= limit for text, limit in texts_of(message))


def test_quote_is_that_of_the_shell_where_it_can_be() -> None:
    assert rules_commands.quote("it's a b") == shlex.quote("it's a b")
    assert rules_commands.quote("a\n`'\\") == "$'a\\x0a\\x60\\'\\\\'"
