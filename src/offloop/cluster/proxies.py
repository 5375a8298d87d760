"""Writes configurations of nginx and HAProxy that stand in front of `offloop serve`.

    clients ──▶ nginx or HAProxy ──▶ one shared port, a port for each server, machines

It knows what the two need to do right what people want of them here: spread requests by
load, try safe ones again elsewhere, notice who is drained or gone, limit clients. It
touches no file and no network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from offloop.errors import UsageError

# What would end a word of a configuration, or begin something else.
_WORD = re.compile(r"[^\s;{}'\"\\#$]+")

_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Front:
    """What a proxy is to do.

    Attributes:
        backends: where servers are, each HOST:PORT or unix:PATH.
        listen: where the proxy listens.
        ready_path: path that says whether a backend wants more requests; "": none.
        max_connections: requests that each backend gets at once; 0: any number.
        client_connections: connections that one client may have; 0: any number.
        static: paths, each with the directory that has its files.
        rewrites: prefixes of paths, each with the one that takes its place.
        deny: prefixes of paths that nobody may ask for.
        passes: prefixes of paths, each with the HOST:PORT of another service.
    """

    backends: tuple[str, ...]
    listen: str = "*:80"
    ready_path: str = ""
    max_connections: int = 0
    client_connections: int = 0
    static: tuple[tuple[str, str], ...] = ()
    rewrites: tuple[tuple[str, str], ...] = ()
    deny: tuple[str, ...] = ()
    passes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        pairs = (*self.static, *self.rewrites, *self.passes)
        texts = [self.listen, self.ready_path, *self.backends, *self.deny]
        for text in (*texts, *(part for pair in pairs for part in pair)):
            if text and not _WORD.fullmatch(text):
                raise UsageError(f"{text!r} cannot stand in a configuration")
        if not self.backends:
            raise UsageError("there is no backend: give --to ADDRESS")


def nginx(front: Front) -> str:
    """Return a file for nginx's folder ``conf.d``.

    It has no checks of its own: a backend that does not answer is left out for a
    second by what happens to requests.
    """
    backends = list(front.backends)
    if len(backends) == 1:
        # What a killed server has lost is worth a second attempt at the same port,
        # where the others are. nginx tries nobody twice, unless he is named twice.
        backends *= 2
    several = len(front.backends) > 1
    limit = f" max_conns={front.max_connections}" if front.max_connections else ""
    fails = "max_fails=1 fail_timeout=1s" if several else "max_fails=0"
    lines = [
        "# Goes to /etc/nginx/conf.d; check it with nginx -t.",
        "",
        "map $http_upgrade $offloop_connection {",
        "    default upgrade;",
        "    '' '';",
        "}",
    ]
    if front.client_connections:
        lines.append("limit_conn_zone $binary_remote_addr zone=offloop_clients:10m;")
    lines += [
        "",
        "upstream offloop {",
        "    zone offloop 128k;",
        "    least_conn;",
        *(f"    server {one} {fails}{limit};" for one in backends),
        "    # No keepalive: a new connection goes to a server that has time for it.",
        "}",
        "",
        "server {",
        f"    listen {front.listen};",
        "    proxy_http_version 1.1;",
        "    proxy_set_header Host $http_host;",
        "    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "    proxy_set_header X-Forwarded-Proto $scheme;",
        "    proxy_set_header Upgrade $http_upgrade;",
        "    proxy_set_header Connection $offloop_connection;",
        "    proxy_connect_timeout 2s;",
        "    # Requests that change something are never sent twice.",
        "    proxy_next_upstream error timeout http_502 http_503;",
        "    proxy_next_upstream_tries 3;",
    ]
    if front.client_connections:
        lines += [
            f"    limit_conn offloop_clients {front.client_connections};",
            "    limit_conn_status 429;",
        ]
    lines += [f"    rewrite ^{old}(/.*)?$ {new}$1;" for old, new in front.rewrites]
    lines += [f"    location {path} {{ return 404; }}" for path in front.deny]
    lines += [
        f"    location {path} {{ alias {folder}; }}" for path, folder in front.static
    ]
    lines += [
        f"    location {path} {{ proxy_pass http://{to}; }}"
        for path, to in front.passes
    ]
    lines += ["    location / {", "        proxy_pass http://offloop;"]
    lines += ["        proxy_buffering off;  # streams go on as they come"]
    lines += ["    }", "}", ""]
    return "\n".join(lines)


def haproxy(front: Front) -> str:
    """Return a whole configuration of HAProxy.

    It asks each backend twice in a second how it is, and takes out whoever is drained
    or gone.

    Raises:
        UsageError: HAProxy cannot do it.
    """
    if front.static:
        raise UsageError(
            "HAProxy serves no files: let nginx, or the application, do it"
        )
    lines = [
        "# Check it with haproxy -c -f FILE.",
        "defaults",
        "    mode http",
        "    option forwardfor",
        "    option redispatch 1",
        "    timeout connect 2s",
        "    timeout client 60s",
        "    timeout server 60s",
        "    timeout queue 30s",
        "    timeout tunnel 1h",
        "",
        "frontend offloop_front",
        f"    bind {front.listen}",
    ]
    if front.client_connections:
        lines += [
            "    stick-table type ipv6 size 100k expire 60s store conn_cur",
            "    http-request track-sc0 src",
            "    http-request deny deny_status 429 if "
            f"{{ sc0_conn_cur gt {front.client_connections} }}",
        ]
    lines += [
        f"    http-request deny deny_status 404 if {{ path_beg {path} }}"
        for path in front.deny
    ]
    lines += [
        f"    http-request replace-path ^{old}(/.*)?$ {new}\\1"
        for old, new in front.rewrites
    ]
    lines += [
        f"    use_backend other_{number} if {{ path_beg {path} }}"
        for number, (path, _) in enumerate(front.passes)
    ]
    lines += [
        "    default_backend offloop",
        "",
        "backend offloop",
        "    balance leastconn",
        "    # A new connection goes to a server that has time for it, and shows at",
        "    # once that a cable is pulled.",
        "    http-reuse never",
        "    retries 3",
        "    # Requests that change something are never sent twice.",
        "    http-request disable-l7-retry unless METH_GET",
        "    retry-on conn-failure empty-response response-timeout 502 503",
        "    http-request set-header X-Forwarded-Proto https if { ssl_fc }",
    ]
    check = ""
    if front.ready_path:
        lines += [
            f"    option httpchk GET {front.ready_path}",
            "    http-check expect status 200",
        ]
    if front.ready_path or len(front.backends) > 1:
        check = " check inter 500ms fastinter 200ms fall 2 rise 1"
    limit = f" maxconn {front.max_connections}" if front.max_connections else ""
    for number, one in enumerate(front.backends):
        address = one.replace(_UNIX, "unix@", 1) if one.startswith(_UNIX) else one
        lines.append(f"    server offloop_{number} {address}{limit}{check}")
    for number, (_, to) in enumerate(front.passes):
        lines += ["", f"backend other_{number}", f"    server other_{number} {to}"]
    return "\n".join([*lines, ""])
