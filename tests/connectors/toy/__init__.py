"""A registry that nobody has, as a folder of `engine/connectors`: what a new one takes is counted by test_toy.py."""
