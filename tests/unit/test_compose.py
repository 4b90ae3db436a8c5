"""docker-compose.yml and Dockerfile: what can be said of them without a Docker engine."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from recsys.redis import Service, open_store
from recsys.settings import ENV_PREFIX, Settings, load_settings
from recsys.settings.report import describe_settings
from tests.services import RedisServer

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
OUR_IMAGE = f"recsys:{PYPROJECT['project']['version']}"
OURS = ("api", "consumer", "trainer")
MONITORING = ("grafana", "prometheus")
LONG_RUNNING = ("api", "consumer", "kafka", "redis", "trainer", *MONITORING)
PATCH_VERSION = re.compile(r"v?\d+\.\d+\.\d+(-[a-z-]+)?")
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # of Kafka's max.message.bytes
LONGEST_STOP_S = 10
PASSWORDS = "/run/recsys"
"""Where the passwords of Redis are, in every container that needs one."""
LOGINS = "/run/login"
"""Where the container that makes them up has the volumes of single services."""


@cache
def made_up_passwords() -> Path:
    """Run the command that makes up passwords, with a folder of this machine, and return the folder."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-passwords-"))
    atexit.register(shutil.rmtree, folder)
    make_up_passwords(folder)
    return folder


def make_up_passwords(folder: Path) -> None:
    *shell, script, name, inside, outside = SERVICES["passwords"]["command"]
    assert shell == ["/bin/sh", "-ec"], "the first line that fails must end it"
    script = script.replace("$$", "$")  # as Compose does
    for service in ("api", "consumer", "redis"):
        (folder / "login" / service).mkdir(parents=True, exist_ok=True)
    script = script.replace(PASSWORDS, str(folder)).replace(LOGINS, str(folder / "login"))
    assert script.startswith("python -m ")
    script = script.replace("python", shlex.quote(sys.executable), 1)
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    subprocess.run([*shell, script, name, inside, outside], cwd=ROOT, env=environment, check=True)


def settings_of(service: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for variable in list(os.environ):
        if variable.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(variable)
    for variable, value in SERVICES[service]["environment"].items():
        assert isinstance(value, str), f"{variable} is not quoted"
        monkeypatch.setenv(variable, value.replace(PASSWORDS, str(made_up_passwords())))
    return load_settings()


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, flags=re.MULTILINE)


def mounts(service: str) -> dict[str, str]:
    """Return the folder at which each volume is mounted; files of this project are none."""
    given = SERVICES[service].get("volumes", [])
    short = (text.split(":") for text in given if isinstance(text, str))
    long = {mount["source"]: mount["target"] for mount in given if isinstance(mount, dict)}
    return {volume: folder for volume, folder, *_ in short if not volume.startswith("./")} | long


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, f"{duration} is not in seconds"
    return int(match[1])


def kafka_listeners(variable: str) -> list[str]:
    return str(SERVICES["kafka"]["environment"][variable]).split(",")


def created_topics() -> dict[str, list[str]]:
    """Return the arguments of each topic that the one-shot service creates."""
    entrypoint, (script,) = SERVICES["topics"]["entrypoint"], SERVICES["topics"]["command"]
    assert entrypoint == ["/bin/bash", "-ec"], "the first topic that cannot be created must end the script"
    commands = [shlex.split(line) for line in script.replace("\\\n", "").splitlines()]
    return {command[command.index("--topic") + 1]: command for command in commands}


def test_compose_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_compose_file_leaves_nothing_to_the_environment_of_whoever_starts_it() -> None:
    assert "$" not in COMPOSE_FILE.read_text(encoding="utf-8").replace("$$", "")


@pytest.mark.parametrize("service", OURS)
def test_every_variable_of_a_service_is_a_setting(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(service, monkeypatch)
    from_environment = {row[0] for row in describe_settings(settings) if row[2] == "environment"}
    assert from_environment == set(SERVICES[service]["environment"])
    assert "RECSYS_REDIS__URL" not in from_environment, "whoever looks at a container would see the password"


@pytest.mark.parametrize("service", OURS)
def test_services_find_kafka_and_redis_by_their_names_in_the_network(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(service, monkeypatch)
    inside = dict(listener.split("://") for listener in kafka_listeners("KAFKA_ADVERTISED_LISTENERS"))["INSIDE"]
    assert settings.kafka.bootstrap_servers == inside == "kafka:9092"
    url = settings.redis.url.get_secret_value()
    assert re.fullmatch(rf"redis://{service}:[\w-]{{43}}@redis:6379/0", url), "as a user of its own"


@pytest.mark.parametrize("service", OURS)
def test_services_run_their_module_from_our_image(service: str) -> None:
    assert SERVICES[service]["command"] == ["python", "-m", service]
    assert SERVICES[service]["image"] == OUR_IMAGE


def test_only_one_service_builds_our_image() -> None:
    assert [name for name, service in SERVICES.items() if "build" in service] == ["trainer"]


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_has_an_exact_version(service: str) -> None:
    _, separator, tag = SERVICES[service]["image"].rpartition(":")
    assert separator
    assert PATCH_VERSION.fullmatch(tag), tag


def test_every_stage_starts_from_the_same_exact_python() -> None:
    images = {image.split()[0] for image in instructions("FROM")}
    assert len(images) == 1, "a virtual environment works only with the Python that made it"
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", images.pop())


def test_our_image_does_not_run_as_root() -> None:
    final_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    user = re.findall(r"^USER +(.*)$", final_stage, flags=re.MULTILINE)[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number lets Kubernetes see that it is not root"
    uid, gid = user.split(":")
    assert f"useradd --uid {uid} " in final_stage
    assert f"groupadd --gid {gid} " in final_stage
    for service in SERVICES.values():
        assert service.get("user", "appuser") not in ("root", "0", "0:0")


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_can_gain_privileges(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICES[service]


def test_only_kafka_may_write_outside_its_volumes() -> None:
    assert [name for name, service in SERVICES.items() if not service.get("read_only")] == ["kafka"]


def test_consumer_can_be_scaled() -> None:
    assert "container_name" not in SERVICES["consumer"]
    assert "ports" not in SERVICES["consumer"]


def test_metrics_are_exposed_where_the_consumer_serves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = settings_of("consumer", monkeypatch).consumer
    port = consumer.metrics_port
    assert consumer.metrics_host == "0.0.0.0"  # noqa: S104 - for the other containers; nothing publishes the port
    assert SERVICES["consumer"]["expose"] == [str(port)]
    assert f'"127.0.0.1", {port}' in SERVICES["consumer"]["healthcheck"]["test"][-1]


def test_nothing_can_be_reached_from_other_machines() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "kafka": ["127.0.0.1:29092:29092"],
        "redis": ["127.0.0.1:6379:6379"],
        "api": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_the_api_is_served_where_its_port_leads_and_reads_models_without_changing_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of("api", monkeypatch).api
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)  # noqa: S104
    assert f'"127.0.0.1", {settings.port}' in SERVICES["api"]["healthcheck"]["test"][-1]
    assert all(text.endswith(":ro") for text in SERVICES["api"]["volumes"])
    assert SERVICES["api"]["env_file"] == [{"path": "api.env", "required": False}]
    assert "api.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_kafka_tells_producers_on_the_host_the_address_that_they_reached_it_at() -> None:
    assert "HOST://:29092" in kafka_listeners("KAFKA_LISTENERS")
    assert "HOST://127.0.0.1:29092" in kafka_listeners("KAFKA_ADVERTISED_LISTENERS")


def test_all_services_see_the_models_at_the_same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {service: mounts(service)["data"] for service in OURS}
    assert len(set(folders.values())) == 1
    for service, folder in folders.items():
        assert settings_of(service, monkeypatch).data_dir == folder


def test_data_folder_of_the_image_belongs_to_its_user() -> None:
    assert f"install --directory --owner recsys --group recsys {mounts('trainer')['data']}" in DOCKERFILE
    assert "data:/var/lib/recsys" in SERVICES["trainer"]["volumes"]
    folders = mounts("passwords")
    assert f"install --directory --owner recsys --group recsys {' '.join(folders.values())}\n" in DOCKERFILE
    assert folders == {
        "passwords": PASSWORDS,
        "api-login": f"{LOGINS}/api",
        "consumer-login": f"{LOGINS}/consumer",
        "redis-users": f"{LOGINS}/redis",
    }


def test_all_state_is_in_named_volumes() -> None:
    used = {volume for service in SERVICES for volume in mounts(service)}
    assert used == set(COMPOSE["volumes"])
    assert SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"] == mounts("kafka")["kafka"]
    assert mounts("redis") == {"redis": "/data", "redis-users": PASSWORDS}


def test_passwords_are_read_only_and_owned_by_who_makes_them_up() -> None:
    for service, volume in {"api": "api-login", "consumer": "consumer-login", "trainer": "passwords"}.items():
        assert f"{volume}:{PASSWORDS}:ro" in SERVICES[service]["volumes"]
    (mount,) = (mount for mount in SERVICES["redis"]["volumes"] if isinstance(mount, dict))
    assert mount["read_only"]
    assert mount["volume"] == {"nocopy": True}, "else Redis's image would decide who owns the folder"
    assert "passwords" in SERVICES["redis"]["depends_on"]


def test_each_service_mounts_what_it_needs_and_sees_no_password_of_another() -> None:
    assert {service: set(mounts(service)) for service in SERVICES} == {
        "kafka": {"kafka"},
        "redis": {"redis", "redis-users"},
        "passwords": {"passwords", "api-login", "consumer-login", "redis-users"},
        "topics": set(),
        "trainer": {"data", "passwords"},  # operators' commands run in it
        "consumer": {"data", "consumer-login"},
        "api": {"data", "api-login"},
        "prometheus": {"prometheus"},
        "grafana": {"grafana"},
    }
    writing = {
        (service, volume.split(":")[0])
        for service in OURS
        for volume in SERVICES[service]["volumes"]
        if not volume.endswith(":ro")
    }
    assert writing == {("trainer", "data")}
    for name in ("api", "consumer"):
        (login,) = (made_up_passwords() / "login" / name).iterdir()
        assert login.name == f"{name}.url"
        assert login.read_text() == (made_up_passwords() / f"{name}.url").read_text()
        assert login.stat().st_mode & 0o777 == 0o600
    (users,) = (made_up_passwords() / "login" / "redis").iterdir()
    assert users.read_text() == (made_up_passwords() / "users.acl").read_text()
    assert users.stat().st_mode & 0o777 == 0o644


def redis_options() -> dict[str, str]:
    command = SERVICES["redis"]["command"]
    assert command[0] == "redis-server"
    return dict(zip(command[1::2], command[2::2], strict=True))


def test_redis_keeps_what_it_is_told() -> None:
    assert redis_options() == {
        "--appendonly": "yes", "--save": "", "--maxmemory": "2gb", "--maxmemory-policy": "noeviction",
        "--aclfile": f"{PASSWORDS}/users.acl",
    }  # fmt: skip


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_no_service_can_take_all_memory_or_all_processes(service: str) -> None:
    assert re.fullmatch(r"\dg", SERVICES[service]["mem_limit"])
    assert SERVICES[service]["pids_limit"] == 1024
    gigabytes = int(redis_options()["--maxmemory"].removesuffix("gb"))
    assert int(SERVICES["redis"]["mem_limit"].removesuffix("g")) >= 2 * gigabytes


def test_passwords_are_made_up_once(tmp_path: Path) -> None:
    make_up_passwords(tmp_path)
    first = {path.name: path.read_text() for path in tmp_path.glob("*.*")}
    make_up_passwords(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.*")} == first
    (tmp_path / "users.acl").unlink()  # as if it had been interrupted
    make_up_passwords(tmp_path)
    second = {path.name: path.read_text() for path in tmp_path.glob("*.*")}
    assert second.keys() == first.keys()
    assert not set(second.values()) & set(first.values())
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.*")}
    assert modes.pop("users.acl") == 0o644
    assert set(modes.values()) == {0o600}
    passwords = [text.partition("@")[0].rpartition(":")[2] for name, text in second.items() if name != "users.acl"]
    assert not [password for password in passwords if password in second["users.acl"]], "Redis is told digests"


def test_redis_lets_each_service_do_its_job_and_whoever_has_no_password_say_ping(tmp_path: Path) -> None:
    options = [(name, value.replace(PASSWORDS, str(made_up_passwords()))) for name, value in redis_options().items()]
    server = RedisServer(tmp_path, *(word for option in options for word in option))
    server.start()
    try:
        with pytest.raises(redis.exceptions.NoPermissionError):
            server.client.get("recsys:popular")
        services = {"api": Service.API, "consumer": Service.CONSUMER, "trainer": Service.TRAINER}
        for name, service in {**services, "operator": Service.COMMAND}.items():
            with open_store(Settings.model_validate({"redis": {"url": url_of(name, server)}})) as store:
                store.connection.check()
                store.connection.ensure_rights(service)
        app = redis.Redis.from_url(url_of("app", server))
        assert app.get("recsys:popular") is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            app.hgetall("recsys:{u}:history")
    finally:
        server.kill()


def url_of(name: str, server: RedisServer) -> str:
    url = (made_up_passwords() / f"{name}.url").read_text().strip()
    assert "@redis:6379/" in url
    return url.replace("@redis:6379/", f"@127.0.0.1:{server.port}/")


def test_topics_are_created_as_the_settings_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = created_topics()
    for service in OURS:
        kafka = settings_of(service, monkeypatch).kafka
        assert set(topics) == {kafka.topic, kafka.dead_letters}
    for command in topics.values():
        assert command[:3] == ["/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "kafka:9092"]
        assert {"--create", "--if-not-exists"} < set(command)
        assert command[command.index("--partitions") + 1] == "12"


def test_dead_letter_topic_takes_64_kib_more_than_the_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = settings_of("consumer", monkeypatch).kafka
    topics = created_topics()
    assert "--config" not in topics[kafka.topic]
    config = topics[kafka.dead_letters][topics[kafka.dead_letters].index("--config") + 1]
    assert config == f"max.message.bytes={DEFAULT_MAX_MESSAGE_BYTES + 64 * 1024}"


def test_only_the_one_shot_service_creates_topics() -> None:
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_long_running_services_have_health_checks_and_come_back(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[service]["restart"] == "unless-stopped"


def test_monitoring_comes_when_it_is_asked_for_and_finds_its_files() -> None:
    for name, service in SERVICES.items():
        assert service.get("profiles") == (["monitoring"] if name in MONITORING else None)
    files = [text for name in MONITORING for text in SERVICES[name]["volumes"] if text.startswith("./")]
    for text in files:
        source, _, mode = text.split(":")
        assert (ROOT / source).exists()
        assert mode == "ro"
    (folder,) = SERVICES["prometheus"]["volumes"][:1]
    assert f"--config.file={folder.split(':')[1]}/prometheus.yml" in SERVICES["prometheus"]["command"]
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in PROMETHEUS["scrape_configs"]}
    for name in OURS:
        found = jobs[f"recsys-{name}"]
        assert (found["names"], found["type"]) == ([name], "A")
    assert str(jobs["recsys-api"]["port"]) == SERVICES["api"]["environment"]["RECSYS_API__PORT"]
    for name in ("consumer", "trainer"):
        environment = SERVICES[name]["environment"]
        assert str(jobs[f"recsys-{name}"]["port"]) == environment[f"RECSYS_{name.upper()}__METRICS_PORT"]
        assert environment[f"RECSYS_{name.upper()}__METRICS_HOST"] == "0.0.0.0"  # noqa: S104


def test_one_shot_services_are_not_started_again() -> None:
    assert set(SERVICES) - set(LONG_RUNNING) == {"topics", "passwords"}
    assert SERVICES["topics"]["restart"] == SERVICES["passwords"]["restart"] == "no"


@pytest.mark.parametrize("service", OURS)
def test_services_wait_for_topics_and_for_healthy_servers(service: str) -> None:
    conditions = {name: dependency["condition"] for name, dependency in SERVICES[service]["depends_on"].items()}
    assert conditions == {
        "kafka": "service_healthy",
        "redis": "service_healthy",
        "topics": "service_completed_successfully",
    }


@pytest.mark.parametrize("service", OURS)
def test_health_checks_are_python_that_compiles(service: str) -> None:
    *interpreter, source = SERVICES[service]["healthcheck"]["test"]
    assert interpreter == ["CMD", "python", "-c"]
    compile(source, f"health check of {service}", "exec")


@pytest.mark.parametrize("service", OURS)
def test_our_services_are_given_time_to_stop(service: str) -> None:
    assert seconds(SERVICES[service]["stop_grace_period"]) > LONGEST_STOP_S


def test_everything_that_the_wheel_is_built_from_gets_into_the_image() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {line.removeprefix("!").rstrip("/") for line in lines if line.startswith("!")}
    packages = set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    files = {PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"], "pyproject.toml"}
    locks = {path for line in instructions("COPY") for path in line.split() if path.endswith(".lock")}
    assert locks
    assert admitted == packages | files | locks


def test_compiled_functions_are_kept_where_a_service_can_write() -> None:
    folder = re.search(r"NUMBA_CACHE_DIR=(\S+)", DOCKERFILE)
    assert folder is not None
    for service in OURS:
        assert any(folder[1].startswith(f"{mount}/") for mount in SERVICES[service]["tmpfs"])


def test_everything_in_the_image_is_checked_against_the_hashes_of_the_lock() -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install ((?:[^\n]*\\\n)*[^\n]*)", DOCKERFILE)
    assert installs
    for arguments in installs:
        assert "--require-hashes" in arguments or {"--no-deps", "--no-index"} < set(arguments.split()), arguments
