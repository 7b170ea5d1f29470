"""The page's server, and the browser where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "examples" / "web"
INSTALL = "run `make test-web`, which installs it"


@pytest.fixture(scope="session")
def node():
    """The path of Node.js."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("Node.js is not installed")
    return path


@pytest.fixture(scope="session")
def packages(node):
    """The npm packages of the page, those for testing it included."""
    if not (PAGE / "node_modules" / "playwright-core").is_dir():
        pytest.skip(f"the page's npm packages are not installed: {INSTALL}")
    return PAGE / "node_modules"


@pytest.fixture(scope="session")
def chromium():
    """The path of a Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    return pytest.skip(f"Chromium is not installed: {INSTALL}")


@pytest.fixture(scope="session")
def address(node):
    """Where the page is served."""
    command = [node, str(PAGE / "serve.mjs"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = server.stdout.readline()
            yield re.search(r"http://\S+/", said).group()
        finally:
            server.terminate()
