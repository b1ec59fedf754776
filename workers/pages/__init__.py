"""Pages for browsers that need nothing but themselves: templates, and what fills them.

run_page: page of one run
"""
