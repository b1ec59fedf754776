"""Runs on a terminal, and as a page.

text: run in words, and its exit code
watch: lines of a run as it goes on
live_text: text of a model as it comes
tree: tree of runs, drawn
timeline_bars: time line of a run, as bars
token_bars: tokens of each step, as bars
page_file: page of a run, as a file
"""
