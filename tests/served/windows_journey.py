"""Runs `python -m dev` on Windows, signs in, requests the style sheet, and sends Ctrl-C.

`tools/windows.py` runs this file in a generated project. The file needs only Python.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

assert sys.platform == "win32"
APP, LOGTO = 3000, 3001
LOG = Path("dev.log")


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Ctrl-C needs a console, and a command in the background has none. So make a console.
kernel32 = ctypes.WinDLL("kernel32")
kernel32.FreeConsole()
assert kernel32.AllocConsole(), "there is no console"
signal.signal(signal.SIGINT, lambda *_: None)

with LOG.open("wb") as output:
    command = [sys.executable, "-m", "dev"]
    dev = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
try:
    deadline = time.monotonic() + 120
    while not is_taken(APP):
        assert dev.poll() is None, "the app has ended"
        assert time.monotonic() < deadline, "the app does not start"
        time.sleep(0.2)
    browser = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))
    page = browser.open(f"http://localhost:{APP}/sign-in", timeout=60)
    [interaction] = parse_qs(urlsplit(page.url).query)["interaction"]
    form = urlencode({"interaction": interaction, "user": "alice"}).encode()
    home = browser.open(f"http://localhost:{LOGTO}/sign-in", form, timeout=60).read()
    assert b"Alice Archer" in home, home
    style = browser.open(f"http://localhost:{APP}/static/style.css", timeout=60)
    assert style.headers.get_content_type() == "text/css", style.headers["Content-Type"]
    os.kill(0, signal.CTRL_C_EVENT)
    status = dev.wait(60)
    assert status == 0, f"the exit code is {status}"
    assert not is_taken(APP), "the app still runs"
    assert not is_taken(LOGTO), "the local Logto still runs"
    log = LOG.read_text("utf-8")
    assert "Traceback" not in log
    assert "Use Python 3.12" not in log
except BaseException:
    print(LOG.read_text("utf-8", errors="replace"))
    raise
finally:
    dev.kill()
print("signed in, style.css is text/css, Ctrl-C ended both")
