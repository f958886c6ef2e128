"""Where settings come from, in which order, and how faults are told."""

import json
import os
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from golem_magic.errors import SettingsError
from golem_magic.settings import Settings, default_share, load_settings

pytestmark = pytest.mark.unit

OLD_FILE = {
    "serverURL": "glados.example:8083",
    "serverPassword": "open sesame",
    "golemResultRoot": "/titan/golem",
    "golemStagingRoot": "/titan/scratch",
    "golemizeScriptPath": "/titan/golemize.py",
    "pythonBin": "/hpc/bin/python",
    "pickleOut": "/titan/out",
    "taskSize": 10,
    "lowGolemID": 1,
    "highGolemID": 20,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a configuration, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("GOLEM_MAGIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_config(home: Path, content: object) -> Path:
    path = home / ".config/golem-magic/config.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def faults_of(content: object, home: Path) -> str:
    write_config(home, content)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


def test_without_any_word_everything_runs_here(home: Path) -> None:
    settings = load_settings()

    assert settings == Settings(share=str(home / ".local/share/golem-magic"), python=(sys.executable,))
    assert settings.engine == "local"


def test_the_call_beats_the_environment_beats_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(home, {"workers": 1, "share": "/from/file", "engine": "golem"})
    monkeypatch.setenv("GOLEM_MAGIC_SHARE", "/from/environment")
    monkeypatch.setenv("GOLEM_MAGIC_WORKERS", "2")

    settings = load_settings(workers=3, share=None)

    assert (settings.workers, settings.share, settings.engine) == (3, "/from/environment", "golem")


def test_the_environment_reaches_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "ENGINE": "golem",
        "SHARE": "~/share",
        "SERVER_URL": "https://host:1/",
        "SERVER_PASSWORD": "word",
        "SERVER_CA": "~/ca.pem",
        "SERVER_FINGERPRINT": ":".join(["AB"] * 32),
        "SERVER_VERIFY": "insecure",
        "SERVER_LEGACY_TLS": "yes",
        "SERVER_PLAIN": "1",
        "SERVER_ENV_PROXIES": "True",
        "WORKERS": "7",
        "OWNER": "me@example.org",
        "PYTHON": "/opt/my python/bin/python",
        "STATE": "/run/state",
    }
    for name, text in said.items():
        monkeypatch.setenv(f"GOLEM_MAGIC_{name}", text)

    assert load_settings() == Settings(
        engine="golem",
        share=os.path.expanduser("~/share"),
        server_url="https://host:1",
        server_password="word",
        server_ca=os.path.expanduser("~/ca.pem"),
        server_fingerprint="ab" * 32,
        server_verify=False,
        server_legacy_tls=True,
        server_plain=True,
        server_env_proxies=True,
        workers=7,
        owner="me@example.org",
        python=("/opt/my python/bin/python",),
        state_dir="/run/state",
    )


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLEM_MAGIC_ENGINE", "")
    monkeypatch.setenv("GOLEM_MAGIC_CONFIG", "")

    assert load_settings().engine == "local"


def test_another_file_can_be_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(home, {"workers": 1})
    other = home / "other.json"
    other.write_text('{"workers": 9}')
    monkeypatch.setenv("GOLEM_MAGIC_CONFIG", "~/other.json")

    assert load_settings().workers == 9


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("python3", ("python3",)),
        ("/with a blank/python", ("/with a blank/python",)),
        (["conda", "run", "python"], ("conda", "run", "python")),
        (Path("/usr/bin/python3"), ("/usr/bin/python3",)),
    ],
)
def test_the_interpreter_is_a_program_or_a_command(said: object, kept: tuple[str, ...]) -> None:
    assert load_settings(python=said).python == kept


def test_the_interpreter_in_the_environment_can_be_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLEM_MAGIC_PYTHON", '["env", "A=b c", "python3"]')

    assert load_settings().python == ("env", "A=b c", "python3")


@pytest.mark.meets("G-32")
def test_a_file_of_golemize_keeps_working(home: Path) -> None:
    path = write_config(home, OLD_FILE)

    settings = load_settings()

    assert settings == Settings(
        engine="golem",
        share="/titan/scratch",
        server_url="glados.example:8083",
        server_password="open sesame",
        python=("/hpc/bin/python",),
    )
    unused = [note.partition(" ")[0] for note in settings.notes]
    names = ["golemResultRoot", "golemizeScriptPath", "pickleOut", "taskSize", "lowGolemID", "highGolemID"]
    assert sorted(unused) == sorted(names)
    assert all(str(path) in note for note in settings.notes)


def test_the_engine_can_still_be_chosen_over_an_old_file(home: Path) -> None:
    write_config(home, OLD_FILE)

    assert load_settings(engine="local").engine == "local"


@pytest.mark.meets("G-32")
def test_all_faults_are_listed_together(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLEM_MAGIC_WORKERS", "many")
    content = {"workers": 0, "share": "", "engin": "local", "python": ["python3", 3], "taskSize": "ten"}

    message = faults_of(content, home)

    path = str(home / ".config/golem-magic/config.json")
    assert f"workers in {path} is 0, allowed: a whole number >= 1" in message
    assert f"share in {path} is '', allowed: the path of a folder" in message
    assert f"engin in {path} is not a setting, did you mean engine?" in message
    assert f"python in {path} is ['python3', 3], allowed:" in message
    assert "GOLEM_MAGIC_WORKERS in the environment is 'many', allowed: a whole number >= 1" in message
    assert "taskSize" not in message  # accepted, whatever it says: it is not used
    assert "\n" not in message


@pytest.mark.parametrize("said", [True, "true", "YES", "on", "1"])
def test_a_switch_can_be_turned_on(said: object) -> None:
    assert load_settings(server_plain=said).server_plain is True


@pytest.mark.parametrize("said", [False, "false", "No", "off", "0"])
def test_a_switch_can_be_turned_off(said: object) -> None:
    assert load_settings(server_verify=said).server_verify is False


@pytest.mark.parametrize("said", [0, 1, "", "maybe", "insecure", None])
def test_a_switch_knows_only_two_words(home: Path, said: object) -> None:
    assert "server_plain in" in faults_of({"server_plain": said}, home)


@pytest.mark.parametrize(
    "said",
    [
        "AB" * 32,
        "sha256 Fingerprint=" + ":".join(["ab"] * 32),  # as openssl 3 prints it
        "SHA256:" + "ab" * 32,
        " ".join(["AB"] * 32),
    ],
)
def test_a_fingerprint_can_be_copied_as_it_is_printed(said: str) -> None:
    assert load_settings(server_fingerprint=said).server_fingerprint == "ab" * 32


@pytest.mark.parametrize("said", ["AB" * 20, "AB" * 33, "xyz", 5])
def test_what_is_no_fingerprint_is_refused(home: Path, said: object) -> None:
    assert "allowed: a SHA-256 fingerprint, 64 hex digits" in faults_of({"server_fingerprint": said}, home)


@pytest.mark.parametrize("workers", [True, 1.0, "4", -1])
def test_a_count_in_a_file_is_a_whole_number(home: Path, workers: object) -> None:
    assert "allowed: a whole number >= 1" in faults_of({"workers": workers}, home)


@pytest.mark.meets("G-35")
@pytest.mark.parametrize("said", ["~/share", "share", "../share", ""])
def test_the_share_of_other_machines_has_an_absolute_path(said: str) -> None:
    with pytest.raises(SettingsError, match=r"share_on_workers in the call is .*, allowed: an absolute path"):
        load_settings(share_on_workers=said)

    assert load_settings(share_on_workers="/mnt/b/../share/").share_on_workers == "/mnt/share"


@pytest.mark.parametrize("url", ["ftp://host", "https://", "//", 5, "http://[::1"])
def test_an_address_is_a_web_address(home: Path, url: object) -> None:
    assert "server_url in" in faults_of({"server_url": url}, home)


def test_one_thing_is_not_said_twice_in_a_file(home: Path) -> None:
    message = faults_of({"share": "/a", "golemStagingRoot": "/b"}, home)

    assert "golemStagingRoot and share in" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [("{'share': 1}", "is not JSON"), ("[1]", "one object of settings"), ('{"a": ', "is not JSON")],
)
def test_a_broken_file_is_named(home: Path, content: str, words: str) -> None:
    message = faults_of(content, home)

    assert words in message
    assert "config.json" in message


def test_bytes_that_are_no_text_are_a_broken_file(home: Path) -> None:
    write_config(home, "").write_bytes(b"\xff\xfe{}")

    with pytest.raises(SettingsError, match=r"config\.json is not JSON"):
        load_settings()


def test_a_file_that_is_a_folder_is_named(home: Path) -> None:
    (home / ".config/golem-magic/config.json").mkdir(parents=True)

    with pytest.raises(SettingsError, match=r"cannot read .*config\.json \(Is a directory\)"):
        load_settings()


def test_a_named_file_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLEM_MAGIC_CONFIG", "/nowhere/config.json")

    with pytest.raises(SettingsError, match=r"/nowhere/config\.json, which does not exist"):
        load_settings()


def test_a_word_that_is_no_setting_is_refused_in_the_call() -> None:
    with pytest.raises(SettingsError, match=r"sharee in the call is not a setting, did you mean share\?"):
        load_settings(sharee="/x")


def test_a_cluster_needs_a_share() -> None:
    with pytest.raises(SettingsError, match="GOLEM_MAGIC_SHARE"):
        load_settings(engine="golem")


def test_another_engine_for_one_map_needs_a_share_of_its_own() -> None:
    with pytest.raises(SettingsError, match="'golem' needs a folder"):
        load_settings().for_engine("golem")


def test_another_engine_for_one_map_keeps_the_share_that_was_named() -> None:
    settings = load_settings(share="/shared")

    assert settings.for_engine("golem") == replace(settings, engine="golem")
    assert settings.for_engine("local") is settings


def test_the_local_share_is_found_again_by_a_map_on_this_machine() -> None:
    settings = load_settings(engine="golem", share="/shared")

    assert replace(settings, share=None).for_engine("local").share == default_share()


@pytest.mark.parametrize(
    "said",
    [
        {"server_password": "open sesame"},
        {"serverPassword": "open sesame", "server_fingerprint": 5},
        {"server_password": ["open sesame"], "workers": 0},
        {"server_url": "https://me:open sesame@host", "workers": 0},
    ],
)
def test_a_password_is_never_shown(home: Path, said: dict[str, object]) -> None:
    write_config(home, said)
    try:
        shown = repr(load_settings())
    except SettingsError as error:
        shown = str(error)

    assert "sesame" not in shown


def test_a_password_hides_itself_wherever_it_is_shown() -> None:
    settings = load_settings(server_password="open sesame")

    assert settings.server_password == "open sesame"
    assert "sesame" not in f"{settings!r} {settings.server_password!r} {vars_of(settings)!r}"


def vars_of(settings: Settings) -> dict[str, object]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}
