"""From a service to a listening process: the address, TLS, and what must be there before others may reach it."""

import errno
import ipaddress
import logging
import socket
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.service.app import create_app
from tapetum.service.state import LOOPBACK_NAMES, Service

LEVELS = ("debug", "info", "warning", "error")
MOST_CONNECTIONS = 1000
GRACE_SECONDS = 10


@dataclass(frozen=True)
class ServerAddress:
    """Where a server listens and by which names it is called."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    public_names: tuple[str, ...] = ()  # by which clients call it
    proxy: str | None = None  # address of the reverse proxy whose forwarded headers are believed; None: nobody's
    certificate: Path | None = None  # PEM file; None speaks plain HTTP
    key: Path | None = None  # its private key
    plain_http: bool = False  # be reachable from other machines without TLS

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        address = _address_of(self.host.strip("[]"))
        return address is not None and address.is_loopback

    @property
    def is_private(self) -> bool:
        """Whether only people on this machine can use it: no proxy, no public name."""
        return self.is_loopback and not self.public_names and self.proxy is None

    @property
    def hosts(self) -> frozenset[str]:
        """Names by which clients may call the server."""
        names = {name.lower() for name in self.public_names}
        if self.is_loopback:
            names |= LOOPBACK_NAMES
        elif self.host not in ("0.0.0.0", "::", ""):  # noqa: S104
            names.add(f"[{self.host}]" if ":" in self.host else self.host.lower())
        return frozenset(names)

    def check(self, has_users: bool, gallery: str) -> None:
        """Refuse an address at which people could be reached who should not be.

        Args:
            gallery: as the operator names it, for the message.
        Raises:
            RecipeError: naming what is missing.
        """
        if self.proxy is not None and _address_of(self.proxy) is None:
            raise RecipeError(
                f"--behind-proxy {self.proxy}: is no address; give that of the proxy, e.g. 127.0.0.1, because whoever "
                "has it can pretend to be any client"
            )
        if (self.certificate is None) != (self.key is None):
            raise RecipeError("--tls-certificate and --tls-key: give both, or neither")
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise RecipeError(f"{file}: no such file; give the certificate and its key as PEM files")
        if self.is_private:
            return
        if not has_users:
            raise RecipeError(
                f"{self.host}: reachable from other machines, and there are no users; add one first: "
                f"tapetum users add NAME --role administer --gallery {gallery}"
            )
        if not self.hosts:
            raise RecipeError(f"--host {self.host}: say by which name clients call this server with --public-name")
        if self.certificate is None and self.proxy is None and not self.plain_http:
            raise RecipeError(
                f"{self.host}: passwords would cross the network unencrypted; give --tls-certificate and --tls-key, "
                "put a TLS proxy in front (--behind-proxy), or say --plain-http for a network that you trust"
            )

    def url(self, port: int) -> str:
        """The address for a browser, of the port it listens at."""
        scheme = "https" if self.certificate else "http"
        name = self.public_names[0] if self.public_names else self.host
        return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/"


def _address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def bind(address: ServerAddress) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        RecipeError: the port is taken, or there is no such address.
    """
    host = address.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise RecipeError(
            f"--host {address.host}: {error.strerror or error}; give an address of this machine"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, address.port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise RecipeError(
                f"port {address.port} of {address.host} is used by another program; choose another with --port"
            ) from None
        raise RecipeError(
            f"{address.host}:{address.port}: cannot listen there ({error.strerror}); choose others with --host and "
            "--port"
        ) from None
    return listener


def set_log_level(level: str) -> None:
    """Write what happens to standard error, from a level on; requests are in the audit log instead.

    What Pillow says about damaged pictures goes to whoever sent them, not to the operator.

    Raises:
        RecipeError: another word.
    """
    if level not in LEVELS:
        raise RecipeError(f"--log-level {level}: unknown; {nearest_name(level, LEVELS)}")
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


def run_server(service: Service, address: ServerAddress, listening: socket.socket) -> None:
    """Answer requests until the process is asked to stop; the service is started here and closed at the end.

    Raises:
        TapetumError: it cannot be started, e.g. because nothing can be written to its folder.
    """
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=address.proxy is not None,
        forwarded_allow_ips=address.proxy or "",
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    service.start()
    try:
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after it has stopped in good order
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        service.close()
