"""`mandate demo --team`: a manager agent and the agents below it.

setup: files of the team, from the examples
run: run of the manager, from start to report
narration: lines of all runs of the tree, as they come
report: report of the tree at the end
"""
