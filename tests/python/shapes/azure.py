"""OpenAI's models at Azure: the deployment and the version in the path, a header of its own."""

import re

from . import openai
from .common import KEY

STREAM = openai.STREAM
garble, whole, stream, error = openai.garble, openai.whole, openai.stream, openai.error
PATH = r"/openai/deployments/([^/?]+)/chat/completions\?api-version=\d{4}-\d\d-\d\d(-preview)?"


def is_authentic(_, headers, __):
    return headers.get("api-key") == KEY and "authorization" not in headers


def understand(path, body):
    asked = re.fullmatch(PATH, path)
    return openai.understood(body, asked[1]) if asked else None
