"""Steps of plans on a terminal.

text: steps in words
live: steps as they come
show: page of `mandate plan show`
"""
