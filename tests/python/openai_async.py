"""The asynchronous client, several requests at once."""

import asyncio

from checks import KEY, MODEL, QUESTION, STORY, URL, check, done
from openai import AsyncOpenAI


async def streamed(client, prompt):
    stream = await client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=8, temperature=0, stream=True)
    return "".join([c.choices[0].text async for c in stream if c.choices])


async def main():
    async with AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60) as client:
        whole = await client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=8, temperature=0)
        check("a chat is answered", bool(whole.choices[0].message.content), whole)
        alone = await streamed(client, STORY)
        check("a stream is answered", bool(alone), alone)
        together = await asyncio.gather(*[streamed(client, STORY) for _ in range(6)])
        check("six streams at once say the same", set(together) == {alone}, together)
        task = asyncio.create_task(streamed(client, STORY + " very old man"))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        check("a cancelled request harms nobody", await streamed(client, STORY) == alone)


asyncio.run(main())
done()
