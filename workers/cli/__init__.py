"""The command line: modules of verbs, then what they share.

root_options: options of every verb
run: `mandate run`
show: `mandate show`
runs: runs on a terminal
stats: `mandate stats`
inbox: `mandate inbox`
requests: requests to people on a terminal
decide: `approve`, `reject`, `decide`, `answer`
limits: limits of runs as options
chat: `mandate chat`, sessions
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
