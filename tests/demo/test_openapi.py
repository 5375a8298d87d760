"""What the server says of itself is true: schemathesis asks it all kinds of things.

Each route gets requests as its description has them, and such as it forbids; each
answer must have a status, a type, headers and a content that the description tells of.
"""

from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from PIL import Image

from demo_server import sharing, start_server, stop_server
from offloop.demo import openapi, writers
from offloop.demo.parameters import PARAMETERS


def small_images():
    files = []
    for format in ("PNG", "JPEG", "GIF"):
        out = io.BytesIO()
        Image.new("RGB", (7, 5), (200, 30, 90)).save(out, format)
        files.append(out.getvalue())
    return strategies.sampled_from([*files, b"not an image", files[0][:40]])


@pytest.fixture(scope="module")
def address():
    """Run a server that refuses what would take long."""
    limits = ("--workers", "1", "--max-pixels", "4000", "--no-controls")
    server, url = start_server(*limits)
    with sharing(server.pid):
        yield url
    stop_server(server)


# As the server has it, which can write what this installation can.
DOCUMENT = openapi.document(writers.writable())

# The figures that are sent again and again have no end.
ROUTES = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    if path != "/events"
    for method, operation in operations.items()
}


def may_be_wrong(operation):
    """Tell whether anything but the path can be asked in a wrong way."""
    parameters = DOCUMENT["components"]["parameters"]
    named = [one["$ref"].rpartition("/")[2] for one in operation.get("parameters", ())]
    queried = any(parameters[name]["in"] == "query" for name in named)
    return queried or "requestBody" in operation


ASKED = [(route, "positive") for route in ROUTES]
ASKED += [(route, "negative") for route in ROUTES if may_be_wrong(ROUTES[route])]


@pytest.fixture(scope="module")
def routes():
    """Return how schemathesis asks, by route; it takes long to be imported."""
    import schemathesis

    for kind in ("image/*", "application/octet-stream"):
        schemathesis.openapi.media_type(kind, small_images())
    description = schemathesis.openapi.from_dict(DOCUMENT)
    operations = [found.ok() for found in description.get_all_operations()]
    return {operation.label: operation for operation in operations}


@pytest.mark.slow
@pytest.mark.parametrize(("route", "mode"), ASKED)
def test_every_answer_is_one_that_was_told_of(address, routes, route, mode):
    import requests
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    strategy = routes[route].as_strategy(generation_mode=GenerationMode(mode))
    with requests.Session() as session:

        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def ask(case):
            # It cannot say that two words are fine, but not together. And a request
            # may ask for so little time that the answer is 504.
            unsaid = [positive_data_acceptance, not_a_server_error]
            answer = case.call_and_validate(address, session, excluded_checks=unsaid)
            assert answer.status_code < 500 or answer.status_code == 504

        ask()


@pytest.mark.parametrize("controls", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_what_is_offered_is_told(controls, signed):
    document = openapi.document(("jpeg", "webp"), controls=controls, signed=signed)
    parameters = document["components"]["parameters"]

    def names(path, method="post"):
        given = document["paths"][path][method]["parameters"]
        return {parameters[one["$ref"].rpartition("/")[2]]["name"] for one in given}

    usual = {*PARAMETERS} - (set() if controls else {"engine"})
    of_signatures = {"sig", "expires", "digest"} if signed else set()
    tracing = {"X-Request-Id", "traceparent", "If-None-Match"}
    for method in ("post", "put"):
        told = names("/encode", method)
        in_headers = {name for name in told if name.startswith("X-Offloop-")}
        assert told - in_headers == usual | {"f", "q"} | of_signatures | tracing
        assert len(in_headers) == (0 if signed else len(usual))
    assert not any(
        name.startswith("X-Offloop") for name in names("/sample/{name}", "get")
    )
    assert ("/controls/kill" in document["paths"]) == controls
    answers = document["paths"]["/encode"]["post"]["responses"]
    assert {*answers["200"]["content"]} == {"image/jpeg", "image/webp"}
    assert {"405", "500"} <= {*answers}
    assert ({"401", "410"} <= {*answers}) == signed
