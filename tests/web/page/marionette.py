"""Firefox, driven by Marionette: what it speaks itself, so that no further program is needed.

Playwright drives only a Firefox of its own, which cannot be had everywhere. The commands are those
of https://w3c.github.io/webdriver/.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

__all__ = ["ENTER", "ESCAPE", "Firefox"]

STARTING = 60  # seconds
PATIENCE = 30  # seconds
ENTER, ESCAPE = "\ue007", "\ue00c"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name of a reference to an element
_PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}
_FAULTS = """
  return Services.console.getMessageArray()
    .filter((said) => said instanceof Ci.nsIScriptError)
    .filter((said) => said.sourceName.startsWith(arguments[0]))
    .map((said) => said.errorMessage);
"""


class Firefox:
    """A window of Firefox without a screen."""

    def __init__(self, program: str, folder: Path, *, width: int = 1280, height: int = 900) -> None:
        """Start it with a new profile below a folder."""
        profile = folder / "profile"
        profile.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        preferences = _PREFERENCES | {"marionette.port": port}
        lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in preferences.items())
        (profile / "user.js").write_text("".join(lines))
        remote = "--marionette", "--remote-allow-system-access", "--no-remote"
        size = f"--width={width}", f"--height={height}"
        self._process = subprocess.Popen(
            [program, "--headless", *remote, *size, "--profile", profile],
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "MOZ_CRASHREPORTER_DISABLE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._socket = self._connected(port)
        self._input = self._socket.makefile("rb")
        self._number = 0
        self._message()  # its greeting
        self._do("WebDriver:NewSession")
        self._do("WebDriver:SetWindowRect", width=width, height=height)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

    def go(self, address: str) -> None:
        """Open an address."""
        self._do("WebDriver:Navigate", url=address)

    def back(self) -> None:
        """Go back."""
        self._do("WebDriver:Back")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page, and return what it returns."""
        return self._do("WebDriver:ExecuteScript", script=script, args=arguments)["value"]

    def until(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function until what it returns is true, and return that."""
        end = time.monotonic() + PATIENCE
        while not (found := self.run(script, *arguments)):
            assert time.monotonic() < end, f"not true: {script} {arguments}"
            time.sleep(0.05)
        return found

    def click(self, selector: str) -> None:
        """Click on the first element that a selector finds and that is shown, once there is one."""
        self._do("WebDriver:ElementClick", id=self._shown(selector))

    def type(self, selector: str, keys: str) -> None:
        """Type into the first element that a selector finds and that is shown."""
        self._do("WebDriver:ElementSendKeys", id=self._shown(selector), text=keys)

    def press(self, key: str) -> None:
        """Press a key, wherever the focus is."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self._do("WebDriver:PerformActions", actions=[keyboard])

    def give(self, selector: str, path: Path) -> None:
        """Choose a file in a field for files, which may be hidden."""
        found = self._do("WebDriver:FindElement", using="css selector", value=selector)
        self._do("WebDriver:ElementSendKeys", id=found["value"][_ELEMENT], text=str(path))

    def faults(self, address: str) -> list[str]:
        """Return errors of scripts from an address, and breaches of its security policy."""
        self._do("Marionette:SetContext", value="chrome")
        try:
            told: list[str] = self.run(_FAULTS, address)
        finally:
            self._do("Marionette:SetContext", value="content")
        return told

    def _shown(self, selector: str) -> str:
        script = """return [...document.querySelectorAll(arguments[0])].find((one) =>
          one.checkVisibility())"""
        return str(self.until(script, selector)[_ELEMENT])

    def _connected(self, port: int) -> socket.socket:
        end = time.monotonic() + STARTING
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), PATIENCE + STARTING)
            except OSError:
                ended = self._process.poll() is not None
                if ended or time.monotonic() > end:
                    raise RuntimeError("Firefox does not start") from None
                time.sleep(0.1)

    def _do(self, command: str, **parameters: Any) -> Any:
        self._number += 1
        text = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(text), text))
        _, _, error, result = self._message()
        assert error is None, f"{command} {parameters}: {error}"
        return result

    def _message(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            more = self._input.read(1)
            assert more, "Firefox has ended"
            length += more
        return json.loads(self._input.read(int(length[:-1])))
