"""`mandate demo`: a shop, an agent, its worker and a run.

command: verb `demo`
setup: folder, shop, agent files
worker: process of the worker
run: run of the demo
lifecycle: run followed to its end, and the way back to it
narration: lines of the run
answers: requests of the run, answered
faults: `--break` and `--kill`
report: report at the end
team: `--team`
"""
