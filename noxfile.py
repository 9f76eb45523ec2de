"""What can be run here: ``nox -l`` lists it, ``nox -s NAME`` runs it.

Needs nox and at least one Python from 3.11 on; everything else comes from PyPI into environments
of its own under ``.nox``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.16"
nox.options.sessions = ["lint", "types", "docs", "wheels", "tests"]
nox.options.reuse_venv = "yes"
# A Python that is missing is reported as skipped, in CI too; none is ever downloaded.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

PYTHONS = ["3.11", "3.12", "3.13"]
CURRENT = "{}.{}".format(*sys.version_info)
OTHERS = [python for python in PYTHONS if python != CURRENT]

# Many tests wait for something, so some more of them than there are processors keep all of these
# busy. Tests of one file stay together, because they may share a server.
SIDE_BY_SIDE = ("-n", str((os.cpu_count() or 1) + 3), "--dist", "loadscope")
IMPORT_NAMES = {"ndb-protocol": "ndb_protocol", "ndb-client": "ndb", "ndb-server": "ndb_server"}
DISTRIBUTIONS = list(IMPORT_NAMES)
# What some modules of a distribution need and the others do without.
EXTRAS = {"ndb-client": "[cli]", "ndb-protocol": "[conformance]"}
# The command that needs them, and the packages that are not there without them.
WITHOUT_EXTRAS = {
    "ndb-client": ("ndb", "cyclopts", "rich"),
    "ndb-protocol": ("ndb-conformance", "websockets"),
}

# What today's clients and servers have to work with: versions on PyPI. Nothing is released yet, so
# a commit of the project's own history stands for them.
EARLIER = ["f5bb0ba1fb83"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def install(session: nox.Session, *groups: str) -> None:
    """Install the three distributions from the work tree, and groups of tools."""
    editable = [f"--editable=packages/{name}{EXTRAS.get(name, '')}" for name in DISTRIBUTIONS]
    session.install(*editable, *nox.project.dependency_groups(PROJECT, *groups))


def run_tests(session: nox.Session) -> None:
    """Run all tests but the long ones. Arguments go to pytest instead."""
    if not session.posargs:
        session.log("This takes about 4 minutes on two processors.")
    install(session, "test")
    session.run("pytest", *(session.posargs or SIDE_BY_SIDE))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the Python that runs nox. Arguments go to pytest instead."""
    run_tests(session)


@nox.session(python=OTHERS)
def pythons(session: nox.Session) -> None:
    """Run the tests on the other Pythons. Arguments go to pytest instead."""
    run_tests(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests, and check that they reach the code."""
    session.log("This takes about 6 minutes on two processors.")
    install(session, "test")
    # Absolute: the servers that tests start run in folders of their own. Not in a folder that nox
    # makes TMPDIR of: Chromium needs a short one, for a socket's path has at most 107 bytes.
    session.env["COVERAGE_FILE"] = str(session.cache_dir.resolve() / "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def torture(session: nox.Session) -> None:
    """Run what takes long: many rounds of some tests, then Autobahn, then a short soak.

    With arguments, only run the tests; the arguments go to pytest.
    """
    if not session.posargs:
        session.log("This takes about 10 minutes on two processors.")
        session.notify("autobahn")
        session.notify("soak", ["--short"])
    install(session, "test")
    session.run("pytest", "-m", "torture", *(session.posargs or SIDE_BY_SIDE))


@nox.session
def e2e(session: nox.Session) -> None:
    """Run only the tests that talk to a real server process."""
    install(session, "test")
    session.run("pytest", "tests/e2e", "tests/durability", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, and who imports whom."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and with pyright."""
    install(session, "types", "test", "docs", "bench")
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "docs", "docs/_build")


IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""

BE_ABSENT = """
import importlib.util, sys
present = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
sys.exit(f"should not be here: {present}" if present else 0)
"""


SHIPPED = """
import subprocess, sys
from importlib.resources import files
shipped = (files("ndb_protocol") / "schemas" / f"ndb.v1.{sys.argv[1]}.json").read_bytes()
printed = subprocess.check_output([sys.executable, "-m", "ndb_protocol", sys.argv[1]])
sys.exit(None if printed == shipped else f"the shipped {sys.argv[1]} is not what is printed")
"""


@nox.session(reuse_venv=False)
@nox.parametrize("distribution", DISTRIBUTIONS, ids=DISTRIBUTIONS)
def wheels(session: nox.Session, distribution: str) -> None:
    """Build the wheels; install each in an environment that has nothing else, and use it."""
    installed = dict.fromkeys(["ndb-protocol", distribution])
    built = Path(session.create_tmp()) / "dist"
    shutil.rmtree(built, ignore_errors=True)
    for name in installed:
        session.run(
            *("python", "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--wheel-dir", str(built), f"packages/{name}"),
        )
    session.install(*map(str, built.glob("*.whl")))
    session.run("python", "-m", "pip", "check")
    if distribution in EXTRAS:
        # Without its extras it works too, and the command line says how to get them.
        session.run("python", "-c", f"import {IMPORT_NAMES[distribution]}")
        command, *packages = WITHOUT_EXTRAS[distribution]
        session.run("python", "-c", BE_ABSENT, *packages)
        session.run(command, success_codes=[2])
        session.install(f"{distribution}{EXTRAS[distribution]}")
    session.run("python", "-c", IMPORT_ALL, *(IMPORT_NAMES[name] for name in installed))
    others = [IMPORT_NAMES[name] for name in DISTRIBUTIONS if name not in installed]
    session.run("python", "-c", BE_ABSENT, *others)
    if distribution == "ndb-protocol":
        # What is in the wheel is what it prints.
        for document in ("schema", "asyncapi"):
            session.run("python", "-c", SHIPPED, document)
    if distribution == "ndb-server":
        session.run("ndb-server", "--version")
    if distribution == "ndb-client":
        session.run("ndb", "--version")
    if distribution == "ndb-protocol":
        session.run("ndb-conformance", "--version")


@nox.session
def demo(session: nox.Session) -> None:
    """Start a server, and show the life of one session on it."""
    install(session)
    session.run("python", "docs/examples/demo.py")


def distributions_of(session: nox.Session, version: str) -> list[str]:
    """Return what pip installs an earlier version from; skip the session if it can't be had."""
    if "." in version:
        return [f"{name}=={version}" for name in DISTRIBUTIONS]
    folder = Path(session.create_tmp()) / version
    archive = folder.with_suffix(".zip")
    command = ["git", "archive", f"--output={archive}", version, "packages"]
    if shutil.which("git") is None or subprocess.run(command, cwd=ROOT, check=False).returncode:
        reason = (
            f"commit {version} is not here: this is no git clone, or a shallow one "
            "(git fetch --unshallow)"
        )
        if os.environ.get("CI"):
            session.error(reason)
        session.skip(reason)
    shutil.unpack_archive(archive, folder)
    return [str(folder / "packages" / name) for name in DISTRIBUTIONS]


def python_with(session: nox.Session, version: str) -> str:
    """Return the Python of an environment that has an earlier version."""
    distributions = distributions_of(session, version)
    venv = Path(session.create_tmp()).resolve() / "earlier"
    # Without pip of its own: that takes longer than all the rest.
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(venv))
    python = str(venv / "bin" / "python")
    session.run("python", "-m", "pip", "--python", python, "install", "--quiet", *distributions)
    return python


@nox.session
@nox.parametrize("earlier", EARLIER, ids=EARLIER)
def compat(session: nox.Session, earlier: str) -> None:
    """Try an earlier version's client with today's server, and the reverse."""
    install(session)
    session.run("python", "-m", "tests.compat", python_with(session, earlier))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, and print a table. Arguments go to ``python -m tests.benchmarks``."""
    install(session, "test", "bench")
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session
def instructions(session: nox.Session) -> None:
    """Count the instructions of a request. ``-- VERSION`` compares with a version or commit."""
    install(session, "bench")
    against = [f"--against={python_with(session, version)}" for version in session.posargs]
    session.run("python", "-m", "tests.benchmarks.instructions", *against)


@nox.session
def soak(session: nox.Session) -> None:
    """Keep a server busy for 30 minutes, and see that nothing grows. ``-- --short`` takes 2."""
    install(session, "test")
    # It uses all of a processor that it gets, so others come first.
    session.run("nice", "-n", "19", "python", "-m", "tests.soak", *session.posargs, external=True)


def python2() -> str | None:
    """Return where Python 2.7 is, if it is there."""
    # A shim of pyenv may be found first, and fail.
    for folder in os.get_exec_path():
        python = shutil.which("python2.7", path=folder)
        if python and not subprocess.run([python, "-c", ""], check=False).returncode:
            return python
    return None


@nox.session
def autobahn(session: nox.Session) -> None:
    """Run the Autobahn test suite against the transport. It needs Python 2.7."""
    python = python2()
    if python is None:
        session.skip("python2.7 is not here, and the Autobahn test suite runs on nothing else")
    install(session)
    suite = Path(session.create_tmp()).resolve() / "wstest"
    # The last virtualenv that makes environments for Python 2.7.
    session.install("virtualenv<20.22")
    session.run("virtualenv", "--quiet", "--python", python, str(suite))
    requirements = ("--requirement", "tests/autobahn/requirements.txt")
    session.run(str(suite / "bin" / "pip"), "install", "--quiet", *requirements, external=True)
    session.run("python", "-m", "tests.autobahn", str(suite / "bin" / "wstest"))
