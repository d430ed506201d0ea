"""The keyed HTTP routes as thin application services over ports; knows HTTP words, but no front and no
AWS.
"""
