"""Settings: where each value comes from, and what is said of a wrong one."""

import argparse
from pathlib import Path

import pytest

from crewcast import config
from crewcast.core.errors import UsageError


def load(command="dev", environ=None, toml: Path | None = None, **flags):
    return config.load(command, {"config": toml and str(toml)} | flags, environ or {})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_setting_is_listed_once_and_its_default_is_a_value_of_its_own():
    names = [setting.name for setting in config.SETTINGS]
    assert len(names) == len(set(names))
    for setting in config.SETTINGS:
        if setting.default not in (None, ()):
            shown = config.shown_default(setting)
            assert setting.parse(shown) == setting.default


def test_flags_beat_variables_beat_the_file_beat_defaults(elsewhere):
    file = elsewhere / "crewcast.toml"
    file.write_text("port = 1001\nmax_runs = 7\ndrain = 1.5\n")
    environ = {"CREWCAST_PORT": "1002", "CREWCAST_MAX_RUNS": "8"}
    settings = load(environ=environ, port="1003")
    assert (settings.port, settings.max_runs, settings.drain, settings.host) == (1003, 8, 1.5, "127.0.0.1")
    assert settings.file == Path("crewcast.toml")
    assert settings.seconds("drain") == 1_500_000


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "x", "invalid literal"),
        ("port", "70000", "between 0 and 65535"),
        ("drain", "-1", "at least 0"),
        ("drain", "nan", "at least 0"),
        ("stub_llm", "maybe", "true or false"),
        ("log_level", "loud", "debug, info"),
        ("retry_schedule", "5,x", "could not convert"),
        ("allow_networks", "10.0.0.1/8", "host bits"),
        ("host", " ", "not be empty"),
        ("connect_timeout", "0", "more than 0"),
        ("response_timeout", "0", "more than 0"),
        ("allow_hosts", "receiver,10.0.0.1", "allow_networks"),
        ("allow_hosts", "*", "host names or *.NAME"),
        ("deny_networks", "10.0.0.1/8", "host bits"),
        ("lease", "0.9", "at least a second"),
        ("roles", "api,cook", "must be some of api, worker, dispatcher"),
        ("roles", "", "must be some of"),
        ("database_url", "mysql://u:hunter2@db/x", "must be postgresql://"),
        ("database_url", "postgresql://u:hunter2@db:port/x", "must be postgresql://"),
        ("proxy", "https://u:hunter2@proxy:3128", "http://"),
        ("proxy", "http://u:hunter2@proxy", "HOST:PORT"),
    ],
)
def test_a_wrong_value_names_its_source_and_not_itself(name, value, said):
    with pytest.raises(UsageError) as caught:
        load(environ={f"CREWCAST_{name.upper()}": value})
    assert str(caught.value).startswith(f"CREWCAST_{name.upper()}: ")
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_name_in_the_file_that_is_no_setting_is_named(elsewhere):
    file = elsewhere / "my.toml"
    file.write_text("prot = 8000\n")
    with pytest.raises(UsageError, match=r"not a setting: prot"):
        load(toml=file)


@pytest.mark.parametrize("text", ["port = ", "\x00"])
def test_a_file_that_is_no_toml_is_named(elsewhere, text):
    file = elsewhere / "crewcast.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"crewcast.toml cannot be read"):
        load()


def test_a_file_that_was_named_must_be_there(elsewhere):
    with pytest.raises(UsageError, match=r"nowhere.toml cannot be read"):
        load(toml=elsewhere / "nowhere.toml")


def test_lists_can_be_written_both_ways(elsewhere):
    (elsewhere / "crewcast.toml").write_text(
        'allow_networks = ["10.0.0.0/8", "fd00::/8"]\nretry_schedule = [1, 2.5]\n'
        'allow_hosts = ["Receiver", "*.inner.example"]\n'
    )
    settings = load("serve")
    assert [str(network) for network in settings.allow_networks] == ["10.0.0.0/8", "fd00::/8"]
    assert settings.retry_schedule == (1.0, 2.5)
    assert settings.allow_hosts == ("receiver", "*.inner.example")
    assert load("serve", {"CREWCAST_ALLOW_HOSTS": "a, *.b,"}).allow_hosts == ("a", "*.b")
    assert load("serve", {"CREWCAST_RETRY_SCHEDULE": "1,2.5"}).retry_schedule == (1.0, 2.5)


def test_every_setting_of_a_command_is_a_flag():
    for command in ("dev", "serve", "secret"):
        parser = argparse.ArgumentParser()
        config.add_flags(parser, command)
        flags = {flag for action in parser._actions for flag in action.option_strings}
        assert {setting.flag for setting in config.of_command(command)} <= flags
        assert ("--stub-llm" in flags) == (command == "dev")


def test_the_token_comes_from_a_file_too(elsewhere):
    file = elsewhere / "token"
    file.write_text("s3cret\nrest\n")
    assert config.token_of(load(token_file=str(file))) == "s3cret"
    assert config.token_of(load(token="flag", token_file=str(file))) == "flag"
    assert config.token_of(load()) is None
    file.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        config.token_of(load(token_file=str(file)))
    with pytest.raises(UsageError, match="token_file"):
        config.token_of(load(token_file=str(elsewhere / "nowhere")))


def test_settings_do_not_print_their_values():
    settings = load(token="s3cret", proxy="http://u:s3cret@proxy:3128")
    assert settings.proxy.authorization == b"Basic dTpzM2NyZXQ="
    assert "s3cret" not in repr(settings)
    assert "dTpzM2NyZXQ" not in repr([settings, settings.proxy])


DATABASE = "postgresql://crewcast:hunter2@db.example/crewcast"


def test_without_a_database_a_node_has_all_roles():
    assert load("serve").roles == ("api", "worker", "dispatcher")
    assert load("serve", roles="dispatcher, API,worker,api").roles == ("api", "worker", "dispatcher")
    with pytest.raises(UsageError, match="CREWCAST_DATABASE_URL") as caught:
        load("serve", roles="worker")
    assert str(caught.value).startswith("roles: worker alone")


def test_over_a_database_a_node_has_the_roles_that_it_is_given(elsewhere):
    settings = load("serve", {"CREWCAST_DATABASE_URL": DATABASE}, roles="dispatcher,api")
    assert settings.roles == ("api", "dispatcher")
    file = elsewhere / "crewcast.toml"
    file.write_text(f'database_url = "{DATABASE}"\nroles = ["worker"]\n')
    assert load("serve").roles == ("worker",)
    assert load("secret").database_url == DATABASE


def test_a_database_with_its_password_is_shown_nowhere():
    assert "hunter2" not in repr(load("serve", {"CREWCAST_DATABASE_URL": DATABASE}))
