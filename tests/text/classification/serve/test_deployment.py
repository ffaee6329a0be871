"""The documents on deployment hold: each option, path and number in them is the server's own."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

from flash.__main__ import main
from flash.cli.serve import build_parser
from flash.text.classification.serve.api.endpoints import ENDPOINTS
from flash.text.classification.serve.metrics import Metrics
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.problems import problem_body
from flash.text.classification.serve.service import LAST_BATCH

REPOSITORY = Path(__file__).parents[4]
FOLDER = REPOSITORY / "docs" / "serving"
DEFAULTS = ServeOptions()
OPEN_PATHS = {endpoint.path for endpoint in ENDPOINTS if endpoint.open}
OPTIONS = {name for action in build_parser()._actions for name in action.option_strings}
INSTRUCTIONS = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR",
}  # fmt: skip


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(name), flags=re.DOTALL | re.MULTILINE)


def accepted(words: list[str]) -> Any:
    """The options of the words after `flash serve`."""
    assert words[0].endswith("flash"), words
    assert words[1] == "serve"
    return build_parser().parse(words[2:])


# ---- the container ----------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what stands behind each, lines that go on joined as Docker joins them."""
    lines = [line for line in text_of("Dockerfile").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [(words[0], words[1]) for line in joined.splitlines() if (words := line.split(maxsplit=1))]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_dockerfile_is_well_formed() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) <= INSTRUCTIONS
    assert of("FROM") == ["python:3.12-slim AS build", "python:3.12-slim"]
    for name in ("ENTRYPOINT", "CMD"):
        [form] = of(name)
        words = json.loads(form)  # exec form: the server is process 1 and gets the signals
        assert all(isinstance(word, str) for word in words)
    for argument in (name.split("=")[0] for name in of("ARG")):
        assert f"${argument}" in text_of("Dockerfile")


@pytest.mark.parametrize("command", of("RUN"), ids=lambda command: " ".join(command.split()[:4]))
def test_a_run_line_is_a_command_of_the_shell(command: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "http" not in command  # no registry of anybody's


def test_what_the_dockerfile_copies_is_there() -> None:
    for rest in of("COPY"):
        words = shlex.split(rest)
        if words[0].startswith("--from="):
            assert words[0] == "--from=build"
            continue
        for source in words[:-1]:
            assert (REPOSITORY / source).exists(), source


def test_the_containers_command_line_is_one() -> None:
    [entrypoint], [command] = of("ENTRYPOINT"), of("CMD")
    options = accepted(json.loads(entrypoint) + json.loads(command))
    assert (options.host, options.port) == ("0.0.0.0", 8000)
    assert of("EXPOSE") == ["8000"]
    assert of("USER") == ["10001:10001"]


def test_the_containers_health_is_asked_without_curl() -> None:
    [line] = of("HEALTHCHECK")
    command = json.loads(line[line.index("[") :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    [path] = re.findall(r"'(/\w+)'", command[2])
    assert path in OPEN_PATHS
    timeout, asked = re.search(r"--timeout=(\d+)s", line), re.search(r"timeout=(\d+)\)", command[2])
    assert timeout
    assert asked
    assert int(asked[1]) < int(timeout[1])


def test_the_containers_time_to_stop_is_longer_than_the_grace() -> None:
    seconds = [
        int(found)
        for found in re.findall(r"(?:--stop-timeout |stop_grace_period: )(\d+)", text_of("container.md"))
    ]
    assert len(seconds) >= 2
    assert all(found > DEFAULTS.grace + LAST_BATCH for found in seconds)


def test_the_images_requirements_are_the_projects() -> None:
    names = [line for line in text_of("requirements.txt").splitlines() if not line.startswith("#")]
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    pinned = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert names == sorted(names)
    for name in names:
        assert re.search(rf'"{name}(\[\w+\])?[>=]', project), name
        assert re.search(rf"^{name}==", pinned, flags=re.MULTILINE), name


def usual(distribution: str) -> str:
    """A distribution's name as every index writes it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


PROBE = """
import importlib.abc, json, runpy, sys
loops, model, hidden = sys.argv[1], sys.argv[2], set(json.loads(sys.argv[3]))

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
runpy.run_path(loops)
from flash.text.classification.backbones.linear import kernels
compiled = len(kernels.logits_of_texts.signatures)
from flash.cli.serve import ServeOptions
from flash.text.classification.serve.served_model import ServedModel
import flash.text.classification.serve.manager, flash.text.classification.serve.run
ServedModel.load(model, ServeOptions())
print(json.dumps([compiled, len(kernels.logits_of_texts.signatures)]))
"""


def test_the_images_packages_suffice_and_what_it_compiles_is_what_serving_needs(model_file: Path) -> None:
    names = [line for line in text_of("requirements.txt").splitlines() if not line.startswith("#")]
    there, new = {"flash-multilabel"}, set(names)
    while new:
        name = new.pop()
        there.add(name)
        with suppress(metadata.PackageNotFoundError):
            needs = [need for need in metadata.requires(name) or [] if "extra ==" not in need]
            new |= {usual(re.split(r"[^\w.-]", need)[0]) for need in needs} - there
    hidden = [
        module
        for module, distributions in metadata.packages_distributions().items()
        if not set(map(usual, distributions)) & there
    ]
    assert "torch" in hidden
    words = [str(FOLDER / "compile_loops.py"), str(model_file), json.dumps(hidden)]
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [2, 2]


# ---- systemd ----------------------------------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    """The keys of the unit and their values."""
    found: dict[str, list[str]] = {}
    for line in text_of("flash-serve.service").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_units_command_line_is_one() -> None:
    [command] = unit()["ExecStart"]
    options = accepted(shlex.split(command))
    assert options.host == "127.0.0.1"
    assert unit()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_the_units_time_to_stop_is_longer_than_the_grace() -> None:
    options = accepted(shlex.split(unit()["ExecStart"][0]))
    assert int(unit()["TimeoutStopSec"][0]) > options.grace + LAST_BATCH
    assert unit()["KillMode"] == ["mixed"]


def test_the_unit_leaves_enough_files_for_the_connections() -> None:
    assert int(unit()["LimitNOFILE"][0]) > 2 * DEFAULTS.max_connections


def test_the_unit_is_hardened_but_lets_loops_be_compiled() -> None:
    keys = unit()
    for key in ("DynamicUser", "NoNewPrivileges", "PrivateDevices", "ProtectHome", "RestrictSUIDSGID"):
        assert keys[key] == ["yes"], key
    assert keys["ProtectSystem"] == ["strict"]
    assert "MemoryDenyWriteExecute" not in keys
    assert "NUMBA_CACHE_DIR=%C/" + keys["CacheDirectory"][0] in keys["Environment"]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze, of Debian's package systemd, is not on PATH")
    program = shutil.which("true")
    assert program
    path = tmp_path / "flash-serve.service"
    path.write_text(text_of("flash-serve.service").replace("/opt/flash/bin/flash", program))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "flash-serve.service" not in done.stderr, (
        done.stderr
    )  # a key that systemd does not know is no failure of it


# ---- Kubernetes -------------------------------------------------------------------------------------------------


def objects() -> dict[str, Any]:
    """The Kubernetes objects by their kind."""
    yaml: Any = import_module("yaml")  # comes with jsonargparse
    return {one["kind"]: one for one in yaml.safe_load_all(text_of("kubernetes.yaml"))}


def pod() -> Any:
    return objects()["Deployment"]["spec"]["template"]["spec"]


def test_the_objects_belong_together() -> None:
    kinds = objects()
    assert sorted(kinds) == ["Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service"]
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["Service"]["spec"]["selector"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    target = kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", kinds["Deployment"]["metadata"]["name"])
    assert "replicas" not in kinds["Deployment"]["spec"]  # else each apply would undo the autoscaler
    [container] = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert kinds["Service"]["spec"]["ports"][0]["targetPort"] in ports
    volumes = {volume["name"] for volume in pod()["volumes"]}
    for one in (container, *pod()["initContainers"]):
        assert {mount["name"] for mount in one["volumeMounts"]} <= volumes
        assert one["image"] == container["image"]


def test_the_pods_command_line_is_one_and_its_ports_are_the_images() -> None:
    [container] = pod()["containers"]
    [entrypoint] = of("ENTRYPOINT")
    options = accepted([*json.loads(entrypoint), *container["args"]])
    assert [port["containerPort"] for port in container["ports"]] == [options.port]
    [user] = of("USER")
    assert f"{pod()['securityContext']['runAsUser']}:{pod()['securityContext']['runAsGroup']}" == user


def test_the_probes_ask_what_is_there_without_a_key() -> None:
    [container] = pod()["containers"]
    for name, path in [
        ("startupProbe", "/ready"),
        ("readinessProbe", "/ready"),
        ("livenessProbe", "/health"),
    ]:
        assert container[name]["httpGet"] == {"path": path, "port": "http"}
        assert path in OPEN_PATHS


def test_the_pods_time_to_stop_is_longer_than_the_grace() -> None:
    [container] = pod()["containers"]
    [entrypoint] = of("ENTRYPOINT")
    options = accepted([*json.loads(entrypoint), *container["args"]])
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    assert pod()["terminationGracePeriodSeconds"] > int(command[1]) + options.grace + LAST_BATCH


def test_the_pod_writes_only_where_it_may() -> None:
    [container] = pod()["containers"]
    [cache] = re.findall(r"NUMBA_CACHE_DIR=(\S+)", text_of("Dockerfile"))
    for one in (container, *pod()["initContainers"]):
        assert one["securityContext"]["readOnlyRootFilesystem"]
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", cache}
    [copy] = pod()["initContainers"]
    assert copy["command"] == ["cp", "-R", f"{cache}/.", "/writable/"]


def test_the_scrape_configuration_asks_with_the_key() -> None:
    yaml: Any = import_module("yaml")
    [block] = blocks("kubernetes.md", "yaml")
    [job] = yaml.safe_load(block)["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert "/metrics" not in OPEN_PATHS
    assert job["authorization"]["type"] == "Bearer"


# ---- nginx ------------------------------------------------------------------------------------------------------


def nginx() -> str:
    [block] = blocks("nginx.md", "nginx")
    return block


def directive(name: str) -> list[str]:
    return [value.strip() for value in re.findall(rf"^\s*{name}\s+([^;]+);", nginx(), flags=re.MULTILINE)]


def size(value: str) -> int:
    return int(value[:-1]) * {"k": 2**10, "m": 2**20}[value[-1]]


def seconds(value: str) -> int:
    assert value.endswith("s")
    return int(value[:-1])


def test_nginxs_numbers_are_the_servers() -> None:
    [largest], [buffer] = directive("client_max_body_size"), directive("client_body_buffer_size")
    assert size(largest) == size(buffer) == DEFAULTS.max_body
    [read] = directive("proxy_read_timeout")
    assert seconds(read) > DEFAULTS.request_timeout
    [idle] = directive("keepalive_timeout")
    assert seconds(idle) < DEFAULTS.keep_alive
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout", "proxy_send_timeout"):
        assert [seconds(value) for value in directive(name)] == [DEFAULTS.receive_timeout], name


def test_nginxs_own_answers_are_like_the_servers() -> None:
    answers = re.findall(r"return (\d+) '(.*)';", nginx())
    assert [status for status, _ in answers] == ["413", "503"]
    for status, body in answers:
        made = json.loads(body)["error"]
        ours = json.loads(problem_body("/v1/classify", int(status), made["code"], made["message"]))["error"]
        assert made == ours


def test_what_nginx_hides_is_there_and_not_open() -> None:
    for path in directive("location = "):
        assert path
    hidden = re.findall(r"location = (\S+)", nginx())
    assert hidden == ["/metrics", "/admin/reload"]
    assert not OPEN_PATHS & set(hidden)


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    for program in ("nginx", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program}, of Debian's package of that name, is not on PATH")
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run(made.split(), capture_output=True, check=True)
    text = re.sub(r"(ssl_certificate )\s*\S+;", rf"\g<1>{certificate};", nginx())
    text = re.sub(r"(ssl_certificate_key )\s*\S+;", rf"\g<1>{key};", text)
    text = text.replace("/var/log/nginx/", f"{tmp_path}/")
    path = tmp_path / "nginx.conf"
    path.write_text(f"pid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\nhttp {{\n{text}}}\n")
    command = ["nginx", "-t", "-p", str(tmp_path), "-c", str(path), "-e", str(tmp_path / "error.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- the page on serving ----------------------------------------------------------------------------------------

PAGES = sorted(path.name for path in FOLDER.glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text_of(name)):
        file, _, part = target.partition("#")
        assert (FOLDER / file).is_file(), target
        if part:
            assert f"\n## {part.capitalize()}\n" in (FOLDER / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_the_page_are_accepted(name: str) -> None:
    for block in re.findall(r"^```\w+\n(.*?)^```", text_of(name), flags=re.DOTALL | re.MULTILINE):
        for words in re.findall(r"\bflash serve +([^'\n&]+)", block):
            build_parser().parse(shlex.split(words))


@pytest.mark.parametrize("name", ["README.md", "nginx.md"])
def test_options_of_the_page_exist(name: str) -> None:
    for option in re.findall(r"`(--[a-z_-]+)", text_of(name)):
        assert option in OPTIONS, option


def test_the_table_of_limits_is_that_of_the_options() -> None:
    rows = re.findall(r"^\| `--([a-z_]+)` \| ([\d,.]+)( MiB)?", text_of("README.md"), flags=re.MULTILINE)
    written = {name: float(number.replace(",", "")) * (2**20 if unit else 1) for name, number, unit in rows}
    limits = {
        field.name: field.default for field in fields(ServeOptions) if type(field.default) in (int, float)
    }
    for name in ("port", "workers", "batch_tokens"):  # say nothing about a client
        del limits[name]
    assert written == limits


def test_the_table_of_metrics_is_whole() -> None:
    written = set(re.findall(r"^\| `(flash_\w+)`", text_of("README.md"), flags=re.MULTILINE))
    families = Metrics().registry.collect()
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert written == {name for name in names if name.startswith("flash_")}


@pytest.fixture(scope="module")
def sample_url(tmp_path_factory: pytest.TempPathFactory, serving: Any) -> Iterator[str]:
    """A server of what the page's first commands train, from fewer rows."""
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
        assert main(["text_classification", *words, "from_sample", "--rows", "600"]) == 0
    with serving(folder / "text_classification_model.pt") as url:
        yield url


def examples() -> list[tuple[str, str]]:
    """Each curl of the page, and the answer that stands behind it."""
    pattern = r"^```sh\n(curl [^\n]*)\n```\n\n```json\n(.*?)^```"
    return re.findall(pattern, text_of("README.md"), flags=re.DOTALL | re.MULTILINE)


def shape(value: Any) -> Any:
    """A JSON value with types for values; what labels and scores a text has is the model's."""
    if isinstance(value, dict):
        numbers = value and all(type(one) is float for one in value.values())
        return {"scores": len(value)} if numbers else {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return "names" if all(type(one) is str for one in value) else [shape(one) for one in value]
    return type(value).__name__


@pytest.mark.parametrize("number", range(4))
def test_the_examples_of_the_page(number: int, sample_url: str, ask: Any) -> None:
    command, answer = examples()[number]
    words = shlex.split(command)
    assert words[:2] == ["curl", "-s"]
    assert words[words.index("-H") + 1] == "Content-Type: application/json"
    made = ask(words[2].replace("http://127.0.0.1:8000", sample_url), words[words.index("-d") + 1].encode())
    assert made.status == 200
    assert shape(made.json) == shape(json.loads(answer))


def test_there_are_no_other_examples() -> None:
    assert len(examples()) == 4
