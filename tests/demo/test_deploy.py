"""The example in examples/deploy: its files fit together, and nginx does its part."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from offloop.demo import command

DEPLOY = Path(__file__).parents[2] / "examples/deploy"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")


def test_every_variable_is_one_of_the_command():
    known = {option.envvar for option in command.demo.params}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    image = (DEPLOY / "Dockerfile").read_text()
    used = {*compose["services"]["images"]["environment"]}
    used |= set(re.findall(r"\b(OFFLOOP_\w+)=", image))
    assert used
    assert used <= known


def test_the_files_that_are_named_are_there():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    build = compose["services"]["images"]["build"]
    root = (DEPLOY / build["context"]).resolve()
    assert (root / build["dockerfile"]).exists()
    for volume in compose["services"]["nginx"]["volumes"]:
        assert (DEPLOY / volume.split(":")[0]).exists()
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (root / build["dockerfile"]).read_text(), re.M
    )
    for name in " ".join(copied).split():
        assert (root / name).exists()


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="there is no nginx here")
def test_images_come_through_nginx(shared_server, picture, tmp_path):
    port = shared_server[1].rpartition(":")[2]
    text = (DEPLOY / "nginx.conf").read_text()
    path = tmp_path / "front.sock"
    text = text.replace("/tmp/", f"{tmp_path}/")
    text = text.replace("images:8000", f"127.0.0.1:{port}")
    text = text.replace("listen 8080", f"listen unix:{path}")
    if os.geteuid() == 0:  # else it would become somebody who may not write there
        text = f"user root;\n{text}"
    config = tmp_path / "nginx.conf"
    config.write_text(text)
    command = [NGINX, "-p", str(tmp_path), "-c", str(config), "-e", "stderr"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    # It takes over a socket that listens already: whoever connects waits for it.
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        server = subprocess.Popen(
            [*command, "-g", "daemon off;"],
            stderr=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
            env={**os.environ, "NGINX": f"{listening.fileno()};"},
        )
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            url = "http://images"
            made = client.post(f"{url}/encode?f=webp&w=20", content=picture())
            assert (made.status_code, made.headers["vary"]) == (200, "Accept")
            again = {"If-None-Match": made.headers["etag"]}
            known = client.post(
                f"{url}/encode?f=webp&w=20", content=picture(), headers=again
            )
            assert known.status_code == 304
            assert client.post(f"{url}/encode", content=b"x").status_code == 415
            large = client.post(f"{url}/encode", content=bytes(22 * 1024**2))
            assert large.status_code == 413
            assert client.get(f"{url}/stats").status_code == 404
            controls = client.post(f"{url}/controls/kill")
            assert controls.status_code == 403
    finally:
        server.terminate()
        server.wait()
