"""The daemon that keeps repositories equal to their wishlists, what it tells of itself, and what takes images away.

The repository says what is published. Whatever else is kept here (`state`) is a cache: without it, everything is asked
once more, and nothing is published twice.
"""
