"""`mandate demo`: a shop, an agent, its worker and a run.

command: verb `demo`
play: demo from nothing
setup: folder, shop, agent files
environment: environment of the worker
worker: process of the worker
run: run of the demo
narration: lines of the run
desk: requests of the run
answers: answers from the terminal
commands: commands to type
kill: `--kill`
faults: `--break`
mending: lost replies and checks
books: shop's own database
report: report at the end
"""
