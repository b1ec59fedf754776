"""Workers: processes, composition and the command line.

main: program `mandate`
worker: composition of one worker
worker_process: worker in its own process
health: health of a worker over HTTP
http_server: web server inside another process
settings: settings from the environment
project: settings of `mandate.yaml`
secrets: secrets by name
run_store: store of the workers, for who only reads
providers: registry of model providers
converter: data converter for Temporal
sandbox: runners and threads of workflow code
receipts: receipts of workflow tasks
marks: gives workflow code the use of keys
interpreter: event loop and garbage collection
telemetry: logs, spans and metrics
doctor: checks of an installation
fleet: workers of one queue, and what each serves
identities: names, keys and directory of people
search_attributes: search attributes of runs
namespaces: namespaces with what runs need in them
client: client library
history: history without a worker
dev_server: embedded Temporal server
catalog: agent files, checked and pinned
events: events of other systems, which start runs
pages: pages for browsers
cli: verbs of `mandate`
demo: `mandate demo`
examples: tools to learn from
"""
