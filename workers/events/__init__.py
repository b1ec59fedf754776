"""Events of other systems that start runs and speak to sessions.

cloud_event: CloudEvents, structured and binary
triggers: file of triggers, as written
trigger_file: file of triggers, read and checked
routing: what an event starts
intake: an event taken in, once
dead_letters: events that nothing can be done with
signatures: who may send events
http: events over HTTP
kafka: events of Kafka topics
"""
