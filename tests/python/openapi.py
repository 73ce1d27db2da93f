"""The description at /openapi.json is one of OpenAPI 3.1, and the node does what it says: requests
made from it, good and bad, bounded in number and time, always the same ones."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from checks import KEY, MODEL, URL, check, done
from openapi_spec_validator import OpenAPIV31SpecValidator

begun = time.monotonic()
ROOT = URL.removesuffix("/v1")
ADMIN = os.environ["SELVEDGE_ADMIN"]
# A model of the node itself, of a provider, of vectors, and none.
PROVIDED, VECTORS = os.environ["SELVEDGE_MODELS"].split(",")
MODELS = [MODEL, PROVIDED, VECTORS, "nobody/has-this"]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "negative_data_rejection",
    "ignored_auth",
]
# What would end the node under test, or reach out of it, and why it is not asked.
LEFT_OUT = {
    "post_admin_shutdown": "stops the node",
    "post_admin_leave": "leaves the mesh and stops the node",
    "post_admin_root_rotate": "replaces the root key of the mesh, which shuts out who is away",
    "post_admin_providers": "would have the node ask addresses drawn by chance",
    "get_admin_watch": "answers until the node stops",
    "get_admin_federated_watch": "answers until the node stops",
}
# Requests made of each operation beside those that cover its schema: as many as end in time.
EXAMPLES = 6
# The longest that all of it may take: several times of what it takes where nothing else runs.
SECONDS = 140
# A request may have headers that nobody knows; a 504 is what those get who do not wait for an
# answer, or want none but a kept one.
CONFIGURATION = f"""
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
[generation]
allow-extra-parameters = false
[auth.openapi.bearer]
bearer = "{KEY}"
[auth.openapi.admin]
bearer = "{ADMIN}"
"""


def short(schema):
    """Lists as long as they may be would take most of the time to make."""
    if isinstance(schema, dict):
        for most in ("maxItems", "maxProperties"):
            if schema.get(most, 0) > 64:
                del schema[most]
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, (dict, list)):
            short(inner)


def named(document):
    """The description, with the names of models that there are, so that requests reach them."""
    short(document)
    for item in document["paths"].values():
        for name, operation in item.items():
            if name not in ("parameters", "options"):
                own = [one for one in item.get("parameters", []) if one["name"] == "model"]
                own = [{**one, "schema": {"enum": MODELS}} for one in own]
                operation["parameters"] = operation.get("parameters", []) + own
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        fields = content.get("application/json", {}).get("schema", {}).get("properties", {})
        if "model" in fields:
            fields["model"]["enum"] = MODELS
        example = content.get("application/json", {}).get("example", {})
        if "model" in example:
            example["model"] = VECTORS if "nomic" in example["model"] else MODEL
    return document


def run(folder, *which):
    """Makes requests of some of the operations, the same ones each time; counts what was asked."""
    program = Path(sys.executable).parent / "schemathesis"
    command = [program, "run", "openapi.json", "--url", ROOT, "--seed", "1", "--no-color"]
    command += ["--generation-database", "none", "--max-examples", str(EXAMPLES), "--no-shrink"]
    command += ["--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)]
    command += ["--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all"]
    command += ["--request-timeout", "20", "--report", "json", "--report-json-path", "told.json"]
    for operation in LEFT_OUT:
        command += ["--exclude-operation-id", operation]
    left = SECONDS - (time.monotonic() - begun)
    ran = subprocess.run(
        [*command, *which], cwd=folder, capture_output=True, text=True, check=False, timeout=left
    )
    check(f"it does what it says {which}", ran.returncode == 0, ran.stdout + ran.stderr)
    told = json.loads(Path(folder, "told.json").read_text())
    print(f"   {told['test_cases']['generated']} requests in {told['running_time']:.0f} s", flush=True)
    check("whatever was chosen was asked", told["operations"]["selected"] > 0, told["operations"])
    return told["operations"]["tested"]


answer = httpx.get(f"{ROOT}/openapi.json", headers={"authorization": f"Bearer {KEY}"})
check("it is served", answer.status_code == 200, answer.text)
document = answer.json()
errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
check("it is OpenAPI 3.1", document["openapi"] == "3.1.0" and not errors, errors[:3])
methods = [one for item in document["paths"].values() for name, one in item.items()]
operations = {one["operationId"] for one in methods if "operationId" in one}
check("what is left out is there", operations.issuperset(LEFT_OUT), LEFT_OUT)
wrong = {"authorization": "Bearer sk-selvedge-none"}
check("a wrong key opens it not", httpx.get(f"{ROOT}/openapi.json", headers=wrong).is_error)
for path, item in document["paths"].items():
    filled = path.replace("{", "").replace("}", "")
    other = httpx.request("PATCH", ROOT + filled)
    check(f"{path}: 405", other.status_code == 405, (other.status_code, other.text))
    known = {name.upper() for name in item if name != "parameters"}
    allowed = set(other.headers["allow"].split(", "))
    check(f"{path}: allows what is described", allowed == known, (allowed, known))
document = named(document)
for path, item in document["paths"].items():
    content = item.get("post", {}).get("requestBody", {}).get("content", {})
    # What is said of a request needs one that there was.
    if "example" in content.get("application/json", {}) and "{id}" not in path:
        url = ROOT + path.replace("{model}", MODEL).replace("{version}", "1")
        bearer = {"authorization": f"Bearer {KEY}"}
        got = httpx.post(url, json=content["application/json"]["example"], headers=bearer)
        check(f"{path}: its example is answered", got.status_code == 200, got.text)
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "openapi.json").write_text(json.dumps(document))
    Path(folder, "schemathesis.toml").write_text(CONFIGURATION)
    tested = run(folder, "--exclude-path-regex", "^/admin/")
    # Last, as it takes away keys and accounts.
    tested += run(folder, "--include-path-regex", "^/admin/")
asked = len(operations) - len(LEFT_OUT)
check(f"all of {asked} operations were tested", 0 < asked == tested, (asked, tested))
check("the node is well", httpx.get(f"{ROOT}/health").json() == {"status": "ok"})
done()
