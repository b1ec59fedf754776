"""The scripted provider: a model that says what a file says.

provider: answers by turn
script: model of the script file
values: values read from the conversation
differences: expectations that do not fit
"""
