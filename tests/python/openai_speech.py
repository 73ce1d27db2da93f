"""The official client has a node write down what is said, by a model of its own or a peer's."""

import io
import os
import wave
from pathlib import Path

import openai
from checks import KEY, MODEL, URL, check, done, fails
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120)
create = client.audio.transcriptions.create
NAME = MODEL
CLIP = Path(os.environ["SELVEDGE_CLIP"])
TEXT = "Ever tried, ever failed. No matter, try again. Fail again. Fail better."

check("the model is listed", NAME in [model.id for model in client.models.list()])
told = create(model=NAME, file=CLIP)
check("what is said", told.text == TEXT, told)
check("how long it lasts", told.usage.seconds == 10, told)
segment = ["segment"]
told = create(
    model=NAME, file=CLIP, response_format="verbose_json", timestamp_granularities=segment,
    language="en", temperature=0,
)
times = [(part.start, part.end) for part in told.segments]
check("its parts", times == [(0, 3), (3, 6), (6, 8), (8, 10)], told)
check("its language", (told.language, told.duration) == ("english", 9.963), told)


# Twice the rate and two channels: three seconds of it.
with wave.open(str(CLIP)) as clip:
    frames = clip.readframes(48_000)
wide = b"".join(frames[at : at + 2] * 4 for at in range(0, len(frames), 2))
packed = io.BytesIO()
with wave.open(packed, "wb") as out:
    out.setnchannels(2)
    out.setsampwidth(2)
    out.setframerate(32_000)
    out.writeframes(wide)
subtitles = create(model=NAME, file=("a.wav", packed.getvalue()), response_format="srt")
first = subtitles.lower().startswith("1\n00:00:00,000 --> ")
check("subtitles", first and "ever failed" in subtitles.lower(), subtitles)


def refuses(what, call):
    return fails(what, openai.BadRequestError, 400, call).body


body = refuses("what is no sound", lambda: create(model=NAME, file=("a.mp3", b"hello" * 99)))
check("by name", body["param"] == "file", body)
body = refuses("times of words", lambda: create(
    model=NAME, file=CLIP, response_format="verbose_json", timestamp_granularities=["word"]
))
check("by name", body["param"] == "timestamp_granularities[]", body)
body = refuses("another language", lambda: create(model=NAME, file=CLIP, language="fr"))
check("by name", body["param"] == "language", body)
translate = client.audio.translations.create
body = refuses("what knows English only", lambda: translate(model=NAME, file=CLIP))
check("by name", body["param"] == "model", body)
hello = [{"role": "user", "content": "Hello"}]
refuses("a chat", lambda: client.chat.completions.create(model=NAME, messages=hello))
done()
