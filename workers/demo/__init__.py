"""`mandate demo`: a shop, an agent, a worker of its own, and one run that is told as it goes on.

`command` the verb; `setup` the demo's files; `worker` its process; `run` one run from start to report; `narration` its
lines; `answers` its requests to people; `faults` what `--break` and `--kill` do; `books` the shop's database; `report`
the end; `commands` what to type next.
"""
