"""A headless Chromium that looks at pages, under its DevTools protocol."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """A headless Chromium under its DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        from websockets.sync.client import connect

        quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
        quiet += ("--disable-component-update", "--disable-sync", "--no-sandbox", "--remote-debugging-port=0")
        self.process = subprocess.Popen(
            [str(CHROMIUM), "--headless", *quiet, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (address.is_file() and len(address.read_text().splitlines()) == 2):
            assert time.monotonic() < deadline, "Chromium did not start"
            time.sleep(0.05)
        port, path = address.read_text().splitlines()
        self.socket = connect(f"ws://127.0.0.1:{port}{path}", max_size=None)
        self.events: list[dict[str, Any]] = []
        self.number = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    session: str | None = None

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def show(self, page: Path) -> None:
        self.call("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + 60
        while self.value("document.readyState") != "complete" or not self.value("location.href").startswith("file:"):
            assert time.monotonic() < deadline, "the page did not load"

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)

    def elsewhere(self, page: Path) -> list[str]:
        """What the page asked for beyond itself."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        assert page.as_uri() in urls
        return [url for url in urls if not url.startswith(("data:", page.as_uri(), "about:"))]

    def complaints(self) -> list[dict[str, Any]]:
        """What the browser logged or a script threw."""
        kinds = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
        return [event for event in self.events if event["method"] in kinds]

    def scheme(self, name: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def phone(self, width: int = 390) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=2, mobile=True)

    def luminance(self, colour: str) -> float:
        """Relative luminance of an expression's CSS colour of any colour space, as the browser paints it."""
        painted = (
            "(() => { const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true}); "
            f"c.fillStyle = {colour}; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; }})()"
        )
        channels = np.array(self.value(painted)[:3]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(self, ink: str, ground: str) -> float:
        """WCAG contrast of two expressions' colours."""
        light, dark = sorted((self.luminance(ink), self.luminance(ground)), reverse=True)
        return (light + 0.05) / (dark + 0.05)
