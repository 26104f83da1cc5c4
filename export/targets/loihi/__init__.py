"""Lava-DL's netx files for Loihi."""
