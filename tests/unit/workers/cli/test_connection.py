from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.service import TLSConfig

from mandate.workers.cli.connection import Connection, configured, environment_of
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import ConnectionFlags, Invocation
from mandate.workers.cli.output import Output
from mandate.workers.cli.root_options import RootOptions
from mandate.workers.settings import Settings

PROFILES = """
[profile.default]
address = "default:7233"
[profile.prod]
address = "prod:7233"
namespace = "shop"
api_key = "from-file"
[profile.prod.tls]
server_name = "prod.example.com"
"""


@pytest.fixture
def profiles(tmp_path: Path) -> str:
    path = tmp_path / "temporal.toml"
    path.write_text(PROFILES)
    return str(path)


def call(root: RootOptions | None = None, **flags: object) -> Invocation:
    return Invocation(root or RootOptions(), ConnectionFlags(**flags), Output())  # type: ignore[arg-type]


def test_nothing_named_means_no_address(tmp_path: Path) -> None:
    assert "target_host" not in configured(call(), {"TEMPORAL_CONFIG_FILE": str(tmp_path / "none.toml")})


def test_flags_win_over_environment_and_environment_over_profile(profiles: str) -> None:
    root = RootOptions(config_file=profiles, profile="prod")

    by_profile = configured(call(root), {})
    by_environment = configured(call(root), {"TEMPORAL_ADDRESS": "env:1"})
    by_flag = configured(call(root, address="flag:1", namespace="flags"), {"TEMPORAL_ADDRESS": "env:1"})

    assert (by_profile["target_host"], by_profile["namespace"]) == ("prod:7233", "shop")
    assert (by_environment["target_host"], by_environment["namespace"]) == ("env:1", "shop")
    assert (by_flag["target_host"], by_flag["namespace"]) == ("flag:1", "flags")


def test_profile_and_file_come_from_the_environment_too(profiles: str) -> None:
    config = configured(call(), {"TEMPORAL_CONFIG_FILE": profiles, "TEMPORAL_PROFILE": "prod"})

    assert config["target_host"] == "prod:7233"


def test_disabled_sources_are_not_read(profiles: str) -> None:
    environment = {"TEMPORAL_CONFIG_FILE": profiles, "TEMPORAL_NAMESPACE": "env"}

    assert configured(call(RootOptions(disable_config_file=True)), environment) == {"namespace": "env"}
    both = RootOptions(disable_config_file=True, disable_config_env=True)
    assert configured(call(both, address="a:1"), environment) == {"target_host": "a:1"}


def test_unknown_profile_is_refused(profiles: str) -> None:
    with pytest.raises(CliError, match="nope"):
        configured(call(RootOptions(config_file=profiles, profile="nope")), {})


def test_api_key_turns_tls_on_unless_told_otherwise() -> None:
    none = RootOptions(disable_config_file=True, disable_config_env=True)

    assert configured(call(none, api_key="k"), {})["tls"] is True
    assert configured(call(none, api_key="k", tls=False), {})["tls"] is False
    assert configured(call(none, tls=True), {})["tls"] is True


def test_tls_flags_change_what_the_profile_says(profiles: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"ca")
    root = RootOptions(config_file=profiles, profile="prod")

    tls = configured(call(root, tls_ca_path=str(tmp_path / "ca.pem")), {})["tls"]

    assert isinstance(tls, TLSConfig)
    assert (tls.domain, tls.server_root_ca_cert) == ("prod.example.com", b"ca")


def test_missing_certificate_is_named() -> None:
    with pytest.raises(CliError, match=r"--tls-cert-path '/no/cert.pem': No such file or directory"):
        configured(call(RootOptions(disable_config_file=True), tls_cert_path="/no/cert.pem"), {})


def test_api_key_is_in_no_repr() -> None:
    assert "secret" not in repr(call(api_key="secret"))


async def connection(address: str, *, options: str = "", temporal_options: str = "") -> Connection:
    client = await Client.connect(address, namespace="shop", lazy=True)
    settings = Settings.from_environment({})
    return Connection(client, settings, address, None, None, options, None, temporal_options)


async def test_the_address_of_a_run_holds_any_workflow_id() -> None:
    here = replace(await connection("flag:1"), ui_url="http://localhost:8233")

    page = "http://localhost:8233/namespaces/shop/workflows"
    assert here.run_url("a/c1/c2") == f"{page}/a%2Fc1%2Fc2"
    assert here.run_url("a b/c1?x#y", "run") == f"{page}/a%20b%2Fc1%3Fx%23y/run/history"


async def test_another_process_connects_as_this_one(tmp_path: Path, profiles: str) -> None:
    (tmp_path / "ca.pem").write_text("an authority")
    flags = {"api_key": "key", "tls_server_name": "shop.test", "tls_ca_path": str(tmp_path / "ca.pem")}
    here = call(RootOptions(config_file=profiles, profile="prod"), **flags)

    told = environment_of(here, await connection("flag:1"))

    config = configured(call(), told)
    assert (config["target_host"], config["namespace"], config["api_key"]) == ("flag:1", "shop", "key")
    assert (config["tls"].domain, config["tls"].server_root_ca_cert) == ("shop.test", b"an authority")
    assert told["TEMPORAL_PROFILE"] == "prod"


@pytest.mark.parametrize(
    ("temporal_options", "anywhere"),
    [
        ("", " --address 127.0.0.1:7233"),
        (" --namespace shop", " --address 127.0.0.1:7233 --namespace shop"),
        (" --address 127.0.0.1:7233", " --address 127.0.0.1:7233"),
    ],
)
async def test_commands_for_any_shell_name_the_server(temporal_options: str, anywhere: str) -> None:
    found = (await connection("127.0.0.1:7233", temporal_options=temporal_options)).anywhere()

    assert (found.options, found.temporal_options) == (anywhere, anywhere)
