"""What a contributor needs. Plain ``nox`` runs all that CI asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    "tests",
    "coverage",
    "everywhere",
    "integration",
    "lint",
    "types",
    "types-trio-typing",
    "docs",
    "demo",
]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13"]
PURE_LAYERS = [
    "_errors",
    "_topics",
    "_trie",
    "_packets",
    "_records",
    "_framing",
    "_codec311",
    "_outbox",
    "_requests",
    "_journal",
    "_packet_ids",
    "_transfers",
    "_deliveries",
    "_subscriptions",
    "_session",
    "_recovery",
    "_remainder",
    "_bounds",
    "_checks",
]


NOT_ABOUT_PURE_LAYERS = [
    "integration",
    "test_disturbed",  # takes several times as long while coverage watches, as do the next three
    "test_nothing_is_left",
    "test_guarantees",
    "test_fuzz",
    "test_broker",
    "test_chat",
    "test_demo",
    "test_examples",
    "test_faults",
    "test_file_system",
    "test_persistence",
    "test_plugin",
    "test_power_loss",
    "test_sqlite",
]


def offer_pyenv_versions() -> None:
    """Has pyenv's shims start every version that is installed, where nobody chose some."""
    pyenv = shutil.which("pyenv")
    if pyenv is None or "PYENV_VERSION" in os.environ:
        return
    listing = subprocess.run(  # noqa: S603, found on the path
        [pyenv, "versions", "--bare"], capture_output=True, text=True, check=False
    )
    installed = [line.strip() for line in listing.stdout.splitlines()]
    wanted = [name for name in installed if name.startswith(tuple(f"{v}." for v in PYTHONS))]
    if wanted:
        current = subprocess.run(  # noqa: S603, found on the path
            [pyenv, "version-name"], capture_output=True, text=True, check=False
        ).stdout.strip()
        first = [name for name in wanted if name in current.split(":")]
        others = [name for name in wanted if name not in first]
        os.environ["PYENV_VERSION"] = ":".join(first + others)


offer_pyenv_versions()


def install(session: nox.Session, *groups: str, package: str = "-e.") -> None:
    """The package, and these dependency groups."""
    session.install(package, *nox.project.dependency_groups(PROJECT, *groups))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite without real brokers."""
    install(session, "tests", "parallel")
    session.run("pytest", "-n", "auto", "--ignore=tests/integration", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The branch coverage of the pure layers, by the tests that have to do with them."""
    install(session, "tests", "parallel")
    session.env["COVERAGE_FILE"] = str(Path(session.create_tmp()) / "coverage")
    session.run("coverage", "erase")
    ignored = [f"--ignore-glob=tests/{name}*" for name in NOT_ABOUT_PURE_LAYERS]
    session.run("coverage", "run", "-m", "pytest", "-n", "auto", *ignored, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    layers = ",".join(f"*/trio_mqtt/{layer}.py" for layer in PURE_LAYERS)
    session.run("coverage", "report", f"--include={layers}", "--fail-under=100")


@nox.session
def integration(session: nox.Session) -> None:
    """The suite on mosquitto and RabbitMQ, which it starts itself."""
    install(session, "tests", "parallel")
    if session.posargs:
        session.run("pytest", "tests/integration", "-rs", *session.posargs)
        return
    # Two at a time, for most of them wait; and each has a RabbitMQ of its own.
    session.run("pytest", "-n", "2", "-m", "not alone", "tests/integration", "-rs")
    session.run("pytest", "-m", "alone", "tests/integration", "-rs")


@nox.session
def everywhere(session: nox.Session) -> None:
    """Cancels, closes and cuts at every point of what an application may do; `tests` at some."""
    install(session, "tests", "parallel")
    session.env["TRIO_MQTT_STRIDE"] = os.environ.get("TRIO_MQTT_EVERYWHERE", "1")
    files = ["tests/test_disturbed.py", "tests/test_nothing_is_left.py"]
    session.run("pytest", "-n", "auto", *files, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Drives client and broker at random against a model; sends the client garbage. For long."""
    install(session, "tests", "parallel")
    session.env.setdefault("TRIO_MQTT_EXAMPLES", os.environ.get("TRIO_MQTT_EXAMPLES", "3000"))
    session.env.setdefault("TRIO_MQTT_FUZZ", os.environ.get("TRIO_MQTT_FUZZ", "300000"))
    files = ["tests/test_guarantees.py", "tests/test_fuzz.py"]
    session.run("pytest", "-n", "auto", *files, *session.posargs)


@nox.session
def crash(session: nox.Session) -> None:
    """Kills the processes of durable sessions, for some minutes."""
    install(session, "tests")
    session.env.setdefault("TRIO_MQTT_KILLS", os.environ.get("TRIO_MQTT_KILLS", "200"))
    session.run("pytest", "tests/integration/test_crash.py", "-rsP", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, by two linters: ruff covers flake8-async only in part."""
    install(session, "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    # Of its optional rules (124, 900 and up) those on checkpoints know no amortized ones. Rule 122
    # is for Trio before 0.27, as it says, and 114 for what is started in `__aenter__`. In tests
    # a nursery may outlive a client (111): its tasks end with the client.
    session.run(
        "flake8",
        "--select=ASYNC1,ASYNC2",
        "--extend-ignore=ASYNC114,ASYNC122,ASYNC124",
        "--per-file-ignores=tests/*:ASYNC111",
        "trio_mqtt",
        "tests",
        "examples",
        "benchmarks",
    )


@nox.session
def types(session: nox.Session) -> None:
    """Types, by two checkers."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session(name="types-trio-typing")
def types_trio_typing(session: nox.Session) -> None:
    """Types of the examples, as an application sees them that still has trio-typing."""
    install(session, "types-trio-typing", package=".")
    session.chdir(session.create_tmp())  # so that it is the installed package that mypy sees
    configuration = f"--config-file={ROOT / 'tests' / 'trio_typing.ini'}"
    session.run("mypy", configuration, str(ROOT / "examples"))


@nox.session
def docs(session: nox.Session) -> None:
    """Writes what is generated in docs/, and fails if that changed it."""
    install(session, "docs")
    session.run("python", "-m", "tests.conformance", "--check" if "CI" in os.environ else "--write")


@nox.session
def bench(session: nox.Session) -> None:
    """Measures the package against other clients, for some minutes."""
    install(session, "bench")
    if session.posargs:
        session.run("python", "-m", "benchmarks", *session.posargs)
        return
    for work in ("receive", "publish", "durable", "connect", "latency", "memory"):
        session.run("python", "-m", "benchmarks", work, "--json", f"build/{work}.json")
    session.run("python", "-m", "benchmarks.growth")
    session.run("python", "-m", "benchmarks.plot", "build", "build/benchmarks.svg")


@nox.session
def demo(session: nox.Session) -> None:
    """The main job, from the package as users install it."""
    install(session, package=".")
    session.chdir(session.create_tmp())
    session.run("python", "-m", "trio_mqtt", "demo", *session.posargs)
