"""The description at /openapi.json is one of OpenAPI 3.1, and the node does what it says: requests
made from it, good and bad, bounded in number and time, always the same ones."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from checks import KEY, MODEL, URL, check, done
from openapi_spec_validator import OpenAPIV31SpecValidator

ROOT = URL.removesuffix("/v1")
ADMIN = os.environ["SELVEDGE_ADMIN"]
# A model of the node itself, of a provider, of vectors, and none.
MODELS = [MODEL, *os.environ["SELVEDGE_MODELS"].split(","), "nobody/has-this"]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
# What would end the node under test, or reach out of it, and why it is not asked.
LEFT_OUT = {
    "/admin/shutdown": "stops the node",
    "/admin/leave": "leaves the mesh and stops the node",
    "/admin/root/rotate": "replaces the root key of the mesh, which shuts out who is away",
    "/admin/watch": "answers until the node stops",
    "/admin/providers": "would have the node ask addresses drawn by chance",
}
CONFIGURATION = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""


def named(document):
    """The description, with the names of models that there are, so that requests reach them."""
    for item in document["paths"].values():
        for parameter in item.get("parameters", []):
            if parameter["name"] == "model":
                parameter["schema"]["enum"] = MODELS
        for operation in (one for name, one in item.items() if name == "post"):
            content = operation.get("requestBody", {}).get("content", {})
            fields = content.get("application/json", {}).get("schema", {}).get("properties", {})
            if "model" in fields:
                fields["model"]["enum"] = MODELS
            # Answers of a few tokens say as much as long ones.
            for most in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
                if most in fields:
                    fields[most].update(minimum=1, maximum=8)
    return document


def run(folder, secret, seconds, *which):
    """Makes requests of some of the paths."""
    program = Path(sys.executable).parent / "schemathesis"
    left_out = [word for path in LEFT_OUT for word in ("--exclude-path", path)]
    command = [program, "run", "openapi.json", "--url", ROOT, "--seed", "1", "--no-color"]
    command += ["--generation-database", "none", "--max-examples", "6", "--no-shrink"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-time", str(seconds)]
    command += ["--checks", ",".join(CHECKS), "--continue-on-failure", "--warnings", "off"]
    command += ["--suppress-health-check", "all", "--request-timeout", "20"]
    command += ["-H", f"authorization: Bearer {secret}", *left_out, *which]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    check(f"what it does is what it says {which}", ran.returncode == 0, ran.stdout + ran.stderr)
    print(ran.stdout[-1500:], flush=True)


answer = httpx.get(f"{ROOT}/openapi.json", headers={"authorization": f"Bearer {KEY}"})
check("it is served", answer.status_code == 200, answer.text)
document = answer.json()
errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
check("it is OpenAPI 3.1", document["openapi"] == "3.1.0" and not errors, errors[:3])
check("what is left out is there", all(path in document["paths"] for path in LEFT_OUT))
wrong = {"authorization": "Bearer sk-selvedge-none"}
check("a wrong key opens it not", httpx.get(f"{ROOT}/openapi.json", headers=wrong).is_error)
for path, item in document["paths"].items():
    filled = path.replace("{", "").replace("}", "")
    other = httpx.request("PATCH", ROOT + filled)
    check(f"{path}: 405", other.status_code == 405, (other.status_code, other.text))
    known = {name.upper() for name in item if name != "parameters"}
    allowed = set(other.headers["allow"].split(", "))
    check(f"{path}: allows what is described", allowed == known, (allowed, known))
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "openapi.json").write_text(json.dumps(named(document)))
    Path(folder, "schemathesis.toml").write_text(CONFIGURATION)
    run(folder, KEY, 30, "--exclude-path-regex", "^/admin/")
    run(folder, ADMIN, 20, "--include-path-regex", "^/admin/")
check("the node is well", httpx.get(f"{ROOT}/health").json() == {"status": "ok"})
done()
