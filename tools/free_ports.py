"""Check that the two ports of `make demo` are free, before it does anything else.

python tools/free_ports.py PORT=3000 LOGTO_PORT=3001
"""

import socket
import sys


def main(settings: list[str]) -> None:
    """Exit with a message that names the option of make for a port that is taken."""
    for setting in settings:
        name, _, port = setting.partition("=")
        for host in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((host, int(port)), 0.3).close()
            except OSError:
                continue
            sys.exit(f"Port {port} is taken. Free it, or run: make demo {name}={int(port) + 10}")


if __name__ == "__main__":
    main(sys.argv[1:])
