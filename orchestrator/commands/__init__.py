"""The commands of `sparring`: one file each, whose function `run` is called with what was typed.

A command's module imports nothing heavy at its top: all of them are imported for `sparring --help`.
"""
