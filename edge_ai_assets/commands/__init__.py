"""The commands of `edge-ai`, a file a group of them; `cli` puts them together.

Thin: what a command does lives in the package that it names. `here` finds what it is asked about, `show` says
it to people.
"""
