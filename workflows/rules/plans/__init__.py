"""Plans: their order, their faults and their progress.

order: needs and levels of steps
graphs: levels and cycles of what needs what
expressions: expressions of plans
targets: agents, tools and plans of steps
shares: shares of steps in a budget
faults: all that is wrong with a plan
diagram: plans as pictures
written: plans that models write
progress: steps that begin, ends of plans
"""
