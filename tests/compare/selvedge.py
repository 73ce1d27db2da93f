"""Three Selvedge nodes in network namespaces of their own: a mesh whose cables can be pulled.

Every node has two interfaces: one to the mesh, which is cut, and one to its clients, which is not.
Needs root. The model is the tests' tiny one: an answer to `p` bytes with `max_tokens` of `m` costs
`p + m` tokens, so that an answer costs the same as the other gateways' provider takes.
"""

import ctypes
import json
import os
import re
import subprocess
import time
import urllib.request

REPLICAS = 3
ACCOUNT = "acme"
NAMES = ("one", "two", "three")
# The kernel's flag for network namespaces.
CLONE_NEWNET = 0x40000000


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


class Cable:
    """A node's cable to the mesh."""

    def __init__(self, bridge, port):
        self.bridge, self.port = bridge, port

    def cut(self):
        ip(f"-n {self.bridge} link set {self.port} nomaster")


class Mesh:
    """Namespaces and nodes; everything is gone with `end`."""

    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.bridge = f"selvcmp-{os.getpid()}"
        self.spaces = [f"{self.bridge}-{index}" for index in range(REPLICAS)]
        self.processes = []

    def wire(self):
        """The namespaces; the bridge's own is where clients are."""
        ip(f"netns add {self.bridge}")
        for name, address in (("mesh", None), ("clients", "10.78.0.254/24")):
            ip(f"-n {self.bridge} link add {name} type bridge")
            if address:
                ip(f"-n {self.bridge} addr add {address} dev {name}")
            ip(f"-n {self.bridge} link set {name} up")
        ip(f"-n {self.bridge} link set lo up")
        for index, space in enumerate(self.spaces):
            ip(f"netns add {space}")
            ip(f"-n {space} link set lo up")
            for switch, net, eth in (("mesh", 77, "eth0"), ("clients", 78, "eth1")):
                port = f"{switch}{index}"
                peer = f"type veth peer name {eth} netns {space}"
                ip(f"-n {self.bridge} link add {port} {peer}")
                ip(f"-n {space} addr add 10.{net}.0.{index + 1}/24 dev {eth}")
                ip(f"-n {space} link set {eth} up")
                ip(f"-n {self.bridge} link set {port} master {switch} up")
        return [Cable(self.bridge, f"mesh{index}") for index in range(REPLICAS)]

    def up(self, index, more):
        """Starts a node and waits for its ready line."""
        words = ["ip", "netns", "exec", self.spaces[index], self.options.selvedge, "up"]
        words += ["--name", NAMES[index], "--home", self.home(index), "--no-mdns"]
        words += ["--api", f"10.78.0.{index + 1}:8420", "--listen", f"10.77.0.{index + 1}:8421"]
        words += ["--model", self.options.model, "--threads", "1", *more]
        log = open(os.path.join(self.folder, f"{NAMES[index]}.log"), "wb")
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        self.processes.append(process)
        for line in process.stdout:
            if line.startswith("ready "):
                return
        raise SystemExit(f"node {NAMES[index]} did not start; see its log in {self.folder}")

    def home(self, index):
        return os.path.join(self.folder, NAMES[index])

    def cli(self, index, *words):
        """A command of the command line, at one node."""
        words = [self.options.selvedge, *words, "--home", self.home(index)]
        words = ["ip", "netns", "exec", self.spaces[index], *words]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def until(self, what, wanted):
        """Asks again until it is so; at most a minute."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if wanted():
                    return
            except (subprocess.CalledProcessError, ValueError):
                pass
            time.sleep(0.2)
        raise SystemExit(f"no {what} within a minute")

    def found(self):
        """The mesh, its budget and a key that every node takes."""
        self.up(0, [])
        for index in range(1, REPLICAS):
            code = re.search(r"sv1-\S+", self.cli(0, "mesh", "invite")).group()
            self.up(index, ["--join", code, "--peer", "10.77.0.1:8421"])
        self.until("mesh", self.is_met)
        self.cli(0, "tenant", "create", ACCOUNT)
        self.cli(0, "budget", "set", ACCOUNT, f"{self.options.cap} tokens/month")
        key = re.search(r"sk-\S+", self.cli(0, "key", "create", "load", "--account", ACCOUNT))
        for index in range(REPLICAS):
            self.until("budget", lambda index=index: self.knows_budget(index))
            self.until("key", lambda index=index: self.takes(index, key.group()))
        return key.group()

    def is_met(self):
        status = json.loads(self.cli(0, "mesh", "status", "--json"))
        alive = [node for node in status["nodes"] if node["state"].lower() == "alive"]
        return len(alive) == REPLICAS

    def knows_budget(self, index):
        budgets = json.loads(self.cli(index, "budget", "show", "--json"))["data"]
        return any(budget["account"] == ACCOUNT and budget["in_force"] for budget in budgets)

    def takes(self, index, key):
        url = f"http://10.78.0.{index + 1}:8420/v1/models"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
        try:
            return urllib.request.urlopen(request, timeout=5).status == 200
        except OSError:
            return False

    def end(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()
        for space in [*self.spaces, self.bridge]:
            subprocess.run(["ip", "netns", "delete", space], check=False)


def enter(namespace):
    """Moves this thread, and those it starts from now on, into a network namespace."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
            raise SystemExit(f"cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")
