"""Other gateways as their documentation says to run them: three replicas, one budget.

Each `start_*` returns the replicas' URLs, the wires that a cut takes away, and the processes.
Nothing is installed here; docs/COMPARE.md gives the commands that do.
"""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

from wires import Wire, free_port

# One budget is written as money where a gateway counts money: a micro-dollar a token.
DOLLARS_PER_TOKEN = 0.000001
KEY = "sk-compare-0123456789"
# A Python gateway on a busy machine may take this long to start.
START_SECONDS = 120

CUSTOM_AUTH = """
from litellm.proxy._types import UserAPIKeyAuth

async def check(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, {limits})
"""


def spawn(folder, name, words, environment=None):
    """A process that writes to NAME.log in the folder."""
    log = open(os.path.join(folder, f"{name}.log"), "wb")
    return subprocess.Popen(
        words, cwd=folder, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
    )


def wait_until_up(url, process):
    """Until the server answers anything at all."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"a gateway ended with {process.returncode}; see its log")
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"nothing answers at {url}")


def start_redis(folder, program):
    """A store without persistence."""
    port = free_port()
    words = [program, "--port", str(port), "--save", "", "--appendonly", "no"]
    return spawn(folder, "redis", words), port


def litellm_config(kind, upstream, cap, redis_port):
    """The configuration of one replica; `kind` is where the limit is written."""
    dollars = cap * DOLLARS_PER_TOKEN
    model = {
        "model": "openai/fixed",
        "api_base": upstream + "/v1",
        "api_key": "none",
        "input_cost_per_token": DOLLARS_PER_TOKEN,
        "output_cost_per_token": DOLLARS_PER_TOKEN,
    }
    router, settings = {"num_retries": 0, "disable_cooldowns": True}, {"num_retries": 0}
    general = {"master_key": KEY}
    if kind == "model-tpm":
        model["tpm"] = cap
        router["routing_strategy"] = "usage-based-routing-v2"
    elif kind == "provider-budget":
        budget = {"budget_limit": dollars, "time_period": "1d"}
        router["provider_budget_config"] = {"openai": budget}
    elif kind == "max-budget":
        settings["max_budget"] = dollars
        settings["budget_duration"] = "1d"
    elif kind in ("key-tpm", "key-budget"):
        general["custom_auth"] = "custom_auth.check"
    if redis_port:
        router["redis_host"], router["redis_port"] = "127.0.0.1", redis_port
        settings["cache"] = True
        settings["cache_params"] = {
            "type": "redis",
            "host": "127.0.0.1",
            "port": redis_port,
            "supported_call_types": [],
        }
    return {
        "model_list": [{"model_name": "fixed", "litellm_params": model}],
        "router_settings": router,
        "litellm_settings": settings,
        "general_settings": general,
    }


def start_litellm(folder, options, kind, upstream, cap, shared):
    """Three proxies; with `shared`, one Redis that each reaches by its own wire."""
    processes, wires = [], []
    port = None
    if shared:
        redis, port = start_redis(folder, options.redis)
        processes.append(redis)
    limits = {"key-tpm": f"tpm_limit={cap}"}.get(kind, f"max_budget={cap * DOLLARS_PER_TOKEN}")
    with open(os.path.join(folder, "custom_auth.py"), "w", encoding="utf-8") as file:
        file.write(CUSTOM_AUTH.format(limits=limits))
    urls = []
    for index in range(3):
        wire = Wire(port) if shared else None
        config = litellm_config(kind, upstream, cap, wire.port if wire else None)
        path = os.path.join(folder, f"litellm{index}.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)  # JSON is YAML
        api = free_port()
        words = [options.litellm, "--config", path, "--port", str(api), "--host", "127.0.0.1"]
        # Prices come with the program; nothing is fetched.
        environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        process = spawn(folder, f"litellm{index}", words, environment)
        processes.append(process)
        urls.append(f"http://127.0.0.1:{api}")
        wires.extend([wire] if wire and index > 0 else [])
    for url, process in zip(urls, processes[-3:]):
        wait_until_up(url + "/health/liveliness", process)
    return urls, wires, processes


def start_portkey(folder, options):
    """Three open-source gateways; the target is named by headers of each request."""
    urls, processes = [], []
    for index in range(3):
        api = free_port()
        words = ["node", options.portkey, f"--port={api}", "--headless"]
        process = spawn(folder, f"portkey{index}", words)
        processes.append(process)
        urls.append(f"http://127.0.0.1:{api}")
    for url, process in zip(urls, processes):
        wait_until_up(url, process)
    return urls, [], processes


HAPROXY = """
global
    stats socket {folder}/haproxy{index}.sock
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
peers mesh
{peers}
backend keys
    stick-table type string size 1k expire 1h store http_req_cnt{table_peers}
frontend api
    bind 127.0.0.1:{api}
    http-request track-sc0 req.hdr(authorization) table keys
    http-request deny deny_status 429 if {{ sc0_http_req_cnt(keys) gt {requests} }}
    default_backend provider
backend provider
    server provider {upstream}
"""


def start_haproxy(folder, options, upstream, cap, tokens, shared):
    """Three proxies that count requests of a key; with `shared`, their tables are replicated."""
    apis = [free_port() for _ in range(3)]
    ports = [free_port() for _ in range(3)]
    wires, processes = [], []
    for index in range(3):
        lines = []
        for other in range(3):
            port = ports[other]
            if other != index and shared:
                wire = Wire(port)
                wires.append(wire)
                port = wire.port
            lines.append(f"    peer node{other} 127.0.0.1:{port}")
        config = HAPROXY.format(
            folder=folder,
            index=index,
            peers="\n".join(lines),
            table_peers=" peers mesh" if shared else "",
            api=apis[index],
            requests=cap // tokens,
            upstream=upstream.removeprefix("http://"),
        )
        path = os.path.join(folder, f"haproxy{index}.cfg")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config)
        words = [options.haproxy, "-db", "-L", f"node{index}", "-f", path]
        processes.append(spawn(folder, f"haproxy{index}", words))
    urls = [f"http://127.0.0.1:{api}" for api in apis]
    for url, process in zip(urls, processes):
        wait_until_up(url, process)
    # The replicas' sessions with each other are up within a few seconds.
    time.sleep(5)
    return urls, wires, processes
