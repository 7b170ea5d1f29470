"""What the page's server gives out, and what it keeps."""

import http.client
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

PAGE = Path(__file__).parents[2] / "examples" / "web"


@pytest.fixture
def get(address):
    """Asks for a path as it is written: nothing is tidied up on the way."""

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    return ask


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/main.js?fresh", "text/javascript; charset=utf-8"),
        ("/models/cards.json", "application/json"),
        ("/models/digits/pruned_int8_web.tflite", "application/octet-stream"),
    ],
)
def test_files_and_their_types(get, path, kind):
    response, body = get(path)
    assert (response.status, response.headers["Content-Type"]) == (200, kind)
    assert len(body) == int(response.headers["Content-Length"]) > 0


def test_wasm_is_served_as_such(get, packages):
    response, _ = get("/node_modules/@litertjs/core/wasm/litert_wasm_internal.wasm", "HEAD")
    assert (response.status, response.headers["Content-Type"]) == (200, "application/wasm")


def test_what_has_not_changed_is_not_sent_again(get):
    tag = get("/style.css")[0].headers["ETag"]
    response, body = get("/style.css", **{"If-None-Match": tag})
    assert (response.status, body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.js",
        "/serve.mjs",
        "/.npmrc",
        "/node_modules/",
        "/../../keras_kd/evaluation/report.html",
        "/%2e%2e/%2e%2e/keras_kd/evaluation/report.html",
        "/models/../../README.html",
        "/models/%2e%2e/examples/web/style.css",
        "/models/make.py",
        "/%00.js",
        "/%.js",
    ],
)
def test_nothing_else_is_given_out(get, path):
    response, body = get(path)
    assert (response.status, body) == (404, b"There is no such file.\n")


def test_only_files_are_asked_for(get):
    assert get("/style.css", "POST")[0].status == 404


def test_a_port_that_is_taken_is_said_in_a_line(node, address):
    taken = str(urlsplit(address).port)
    done = subprocess.run(
        [node, str(PAGE / "serve.mjs"), "--port", taken],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "choose another one with --port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_lock_file_names_no_registry():
    assert '"resolved"' not in (PAGE / "package-lock.json").read_text()
