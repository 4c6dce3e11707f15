"""A company network: a proxy is the only way out, and a private CA signs the certificates."""

import datetime
import http.client
import ipaddress
import select
import socket
import socketserver
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from processes import free_port
from sites import FaultyLogto, Handler
from werkzeug.serving import make_server

T = TypeVar("T")

NAME = "logto.example"
"""The host of Logto. Only the proxy can reach it: name servers do not know it (RFC 6761, 6.5)."""
ENDPOINT = f"https://{NAME}"
PASSWORD = "pr0xy-passw0rd"
UNREACHABLE_PROXY = "http://127.0.0.1:9"
"""A proxy that does not exist."""


def proxies(**urls: str) -> dict[str, str]:
    """Return variables that set these proxies (`https`, `http`, `no`) and empty all others.

    The result has each variable in small and in capital letters: small letters have priority.
    """
    values = {f"{name}_proxy": urls.get(name, "") for name in ("https", "http", "no", "all")}
    return values | {name.upper(): value for name, value in values.items()}


class Proxy(socketserver.ThreadingTCPServer):
    """A forward proxy: CONNECT (RFC 9110, 9.3.6) and requests with a whole URL (RFC 9112, 3.2.2).

    `hosts` maps each reachable host and port to a local port. `requests` has the method and
    the target of every request.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, user: str = "") -> None:
        super().__init__(("127.0.0.1", free_port()), Tunnel)
        self.hosts: dict[str, int] = {}
        self.requests: list[str] = []
        self.expected = f"Basic {b64encode(user.encode()).decode()}" if user else None
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{user}@{self.address}" if user else f"http://{self.address}"


class Tunnel(socketserver.StreamRequestHandler):
    """One connection to the proxy, for one request or one tunnel."""

    server: Proxy

    def handle(self) -> None:
        method, target, *_ = [*self.rfile.readline().decode("latin-1").split(), "", ""]
        headers = http.client.parse_headers(self.rfile)
        self.server.requests.append(f"{method} {target}")
        url = urlsplit(target if "://" in target else f"//{target}")
        port = self.server.hosts.get(f"{url.hostname}:{url.port or 80}")
        if self.server.expected not in (None, headers["Proxy-Authorization"]):
            self.refuse("407 Proxy Authentication Required")
        elif port is None:
            self.refuse("502 Bad Gateway")
        else:
            with socket.create_connection(("127.0.0.1", port)) as logto:
                if method == "CONNECT":
                    self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    self.forward(f"{method} {url.path}", headers, logto)
                relay(self.connection, logto)

    def refuse(self, status: str) -> None:
        """Respond with an error page of the proxy."""
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    def forward(self, start: str, headers: Any, logto: socket.socket) -> None:
        """Forward a request, without the headers that are for the proxy only."""
        kept = [f"{n}: {v}" for n, v in headers.items() if not n.lower().startswith("proxy-")]
        head = "\r\n".join([f"{start} HTTP/1.1", *kept, "Connection: close", "", ""])
        body = self.rfile.read(int(headers.get("Content-Length", 0)))
        logto.sendall(head.encode("latin-1") + body)


def relay(first: socket.socket, second: socket.socket) -> None:
    """Forward bytes in both directions until one side closes its connection."""
    ends = {first: second, second: first}
    while True:
        for ready in select.select([first, second], [], [])[0]:
            try:
                content = ready.recv(2**16)
                ends[ready].sendall(content)
            except OSError:
                return
            if not content:
                return


class Network:
    """The proxy, the certificate authority, and a TLS server for Logto.

    Logto has the URL `https://logto.example` through the proxy, and `direct` without a proxy.
    """

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        self.proxy = proxy
        self.authority = folder / "authority.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(folder, self.authority))
        self.logto: FaultyLogto | None = None
        self.tls = make_server(
            "127.0.0.1",
            free_port(),
            self._wsgi,
            threaded=True,
            request_handler=Handler,
            ssl_context=context,
        )
        # 0.0.0.0 is not a loopback address, but Linux connects it to this machine.
        self.direct = f"https://0.0.0.0:{self.tls.server_port}"
        proxy.hosts[f"{NAME}:443"] = self.tls.server_port

    def _wsgi(self, environ: Any, start: Any) -> Any:
        assert self.logto
        return self.logto._wsgi(environ, start)

    def connect(self, logto: FaultyLogto, endpoint: str = ENDPOINT) -> None:
        """Give this Logto the name `endpoint`."""
        self.logto = logto
        local = logto.local
        local.app.config["TRUSTED_HOSTS"] += [NAME, "0.0.0.0"]  # noqa: S104
        local.endpoint, local.issuer = endpoint, f"{endpoint}/oidc"
        logto.issuer = local.issuer
        self.proxy.hosts[f"{NAME}:80"] = local.port

    def local(self, url: str) -> str:
        """Return the URL at which a browser on this machine opens a page of `logto.example`."""
        assert self.logto
        assert url.startswith(ENDPOINT)
        return url.replace(ENDPOINT, self.logto.endpoint, 1)

    @contextmanager
    def proxy_refusing(self) -> Iterator[None]:
        """Let the proxy refuse every host until the end of the `with` block."""
        hosts, self.proxy.hosts = self.proxy.hosts, {}
        try:
            yield
        finally:
            self.proxy.hosts = hosts


@contextmanager
def company_network(folder: Path, user: str = f"company:{PASSWORD}") -> Iterator[Network]:
    """Start a network. Its proxy requires this user and password."""
    with Proxy(user) as proxy:
        network = Network(folder, proxy)
        for server in (proxy, network.tls):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield network
        finally:
            network.tls.shutdown()
            network.tls.server_close()
            proxy.shutdown()


@contextmanager
def offices_of(build: Callable[..., T], folders: Any) -> Iterator[Callable[[str], T]]:
    """Yield a function that returns the office of a framework: what `build` makes in a network.

    The first call for a framework starts a company network and calls `build` with the framework,
    a folder, the network, and a stack that is closed at the end. `folders` is pytest's
    `tmp_path_factory`.
    """
    with ExitStack() as stack:

        @cache
        def office(framework: str) -> T:
            folder = folders.mktemp("office")
            return build(framework, folder, stack.enter_context(company_network(folder)), stack)

        yield office


def certificate(folder: Path, authority: Path) -> Path:
    """Write the certificate of a private CA, and a certificate for Logto with its key.

    Return the file of Logto's certificate.
    """
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("0.0.0.0"))]  # noqa: S104
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _signed("Company CA", root_key.public_key(), "Company CA", root_key, [])
    leaf = _signed(NAME, key.public_key(), "Company CA", root_key, names)
    authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    file = folder / "logto.pem"
    file.write_bytes(
        leaf.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


def _signed(subject: str, key: Any, issuer: str, issuer_key: Any, names: list[Any]) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False
    )  # fmt: skip
    usage |= {"digital_signature": bool(names), "key_cert_sign": not names, "crl_sign": not names}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
