"""The command line: modules of verbs, then what they share.

root_options: options of every verb
run: `mandate run`
watch: lines of a run
show: `mandate show`
run_text: run in words, and its exit code
run_tree: tree of runs, drawn
run_file: page of a run, as a file
timeline_bars: time line of a run, as bars
token_bars: tokens of each step, as bars
stats: `mandate stats`
inbox: `mandate inbox`
entitled: requests of a person
request_names: names of requests
request_text: requests in words
decide: `approve`, `reject`, `decide`, `answer`
decisions: decisions looked up and sent
limits: limits of runs as options
edit: other arguments for a call
chat: `mandate chat`, sessions
live_text: text of a model as it comes
control: `steer`, `pause`, `resume`, `stop`
plan: `mandate plan`
plans: steps of plans in words
schedule: `mandate schedule`
listen: `mandate listen`
listener: process of `mandate listen`
validate: `mandate validate`
validation: pages of `mandate validate`
worker: `mandate worker`
worker_watch: `mandate worker --watch`
watched_files: files of a worker, and their changes
server: `mandate server`
setup_namespace: `mandate setup-namespace`
doctor: `mandate doctor`
unserved: runs whose queue no worker polls
init: `mandate init`
own_worker: worker of one command
keys: `mandate keys`
budget: `mandate budget`
cache: `mandate cache`
options: options that verbs share
connection: connection to Temporal
transport_errors: errors of that connection in words
identity: name of the user
tokens: signed tokens
output: results, tables and errors
errors: errors with exit codes, in words
signals: SIGINT and SIGTERM
prompts: questions on the terminal
paragraphs: text in lines of a width
shell_commands: commands to type
"""
