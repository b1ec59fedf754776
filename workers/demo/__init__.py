"""`mandate demo`: a small shop, its agent, a worker of its own, and one run that is told as it goes on.

`command` the verb; `setup` the demo's files; `worker` its process; `run` one run from start to report; `narration` its
lines; `answers` to requests; `faults` of `--break` and `--kill`; `report` facts and their text.
"""
