"""A browser without a window, driven over WebDriver: Chromium's own driver and plain HTTP."""

import json
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.request

# The name under which WebDriver hands elements out, fixed by its standard.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
# A command that takes longer than this has failed: pages here are drawn in milliseconds.
LONGEST_COMMAND = 30.0
ARGUMENTS = [
    "--headless=new",
    # The suite runs as root in a container, where Chromium's sandbox cannot be made.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1440,1000",
    "--force-device-scale-factor=1",
]


class Browser:
    """One browser with one window; a context manager that ends both processes."""

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(prefix="selvedge-browser-")
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self.address = None
            for line in self.driver.stdout:
                found = re.search(r"started successfully on port (\d+)", line)
                if found:
                    self.address = f"http://127.0.0.1:{found.group(1)}"
                    break
            if self.address is None:
                raise RuntimeError("chromedriver ended without saying its port")
            options = {"args": [*ARGUMENTS, f"--user-data-dir={self.profile.name}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = f"/session/{made['sessionId']}"
        except BaseException:
            self.driver.kill()
            self.driver.wait()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.profile.cleanup()

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data=data, method=method)
        request.add_header("content-type", "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=LONGEST_COMMAND) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {json.load(error)['value']['message']}") from error

    def post(self, path, body):
        return self.call("POST", self.session + path, body)

    def open(self, path):
        self.post("/url", {"url": "file://" + os.path.abspath(path)})

    def run(self, script, *arguments):
        """What a script returns; it may be waiting for a promise."""
        return self.post("/execute/sync", {"script": script, "args": list(arguments)})

    def settle(self):
        """Waits until what was asked for is drawn: two pictures later."""
        self.run("return new Promise((done) => "
                 "requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def find(self, css):
        return self.post("/element", {"using": "css selector", "value": css})

    def click(self, css):
        self.post(f"/element/{self.find(css)[ELEMENT]}/click", {})
        self.settle()

    def press(self, keys):
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.post("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})
        self.settle()

    def point(self, *steps):
        """Moves and presses the mouse: `("to", x, y)`, `"down"`, `"up"`."""
        actions = []
        for step in steps:
            if step == "down" or step == "up":
                kind = "pointerDown" if step == "down" else "pointerUp"
                actions.append({"type": kind, "button": 0})
            else:
                _, x, y = step
                actions.append({"type": "pointerMove", "duration": 40, "x": int(x), "y": int(y)})
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        self.post("/actions", {"actions": [{**pointer, "actions": actions}]})
        self.settle()

    def wheel(self, x, y, down, hold_ctrl=False):
        turn = {"type": "scroll", "x": int(x), "y": int(y), "deltaX": 0, "deltaY": down}
        inputs = [{"type": "wheel", "id": "wheel", "actions": [{"type": "pause"}, turn]}]
        if hold_ctrl:
            held = [{"type": "keyDown", "value": "\ue009"}, {"type": "pause"},
                    {"type": "keyUp", "value": "\ue009"}]
            inputs.append({"type": "key", "id": "ctrl", "actions": held})
        self.post("/actions", {"actions": inputs})
        self.settle()

    def prefer(self, scheme):
        """Light or dark, as the system would say."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self.post("/goog/cdp/execute", command)
        self.settle()

    def log(self):
        return [f"{entry['level']}: {entry['message']}" for entry in self.post("/se/log", {"type": "browser"})]
