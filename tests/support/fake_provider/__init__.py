"""A model provider over real HTTP: all three protocols, with the vendors' own refusals, told what to do.

- `server`: the server, `FakeProvider`; what it was asked and what it is to answer next.
- `behaviours`: answers, errors and cut connections that it can be told, and those that a model's name says.
- `rules`: what each vendor refuses with 400.
- `bodies`: answers and errors as each protocol writes them.
- `streams`: the same answers in events, where a request asks for them.
- `requests`: a request as it came.
- `tokens`: exact token counts, reported and limited where the server is told a `window` or to `count`.
- `billing`: the provider's own account of what it took in, where the server is given one.
- `default`: the answer when nothing else is said.
- `benchmark`: models whose name says a whole run.

**In a test**: `async with FakeProvider() as fake:`; the base URL is `fake.url`, with `/v1` for OpenAI's protocols.
**As a process**: `python -m tests.support.fake_provider --port 4720`; it prints its URL once it listens.

It answers with, in this order:

1. what the model's name says, if it begins with `bench` (`benchmark`);
2. a 400, if the vendor would refuse the request (`rules`); nothing is used up then;
3. the next of `fake.will(...)`, whatever was asked;
4. the behaviour that the model's name says: `fake-quota`, `fake-cut`, ... (`behaviours.NAMED`);
5. what its `script` says: a function of the request, as the crash suite has one; without it `default` answers with two
   calls of the first tool offered, in parallel, once after each text; else with the text `All done.`

Every request that is not for a benchmark is recorded in `fake.requests` as it came.
"""
