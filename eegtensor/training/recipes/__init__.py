"""Runs that are more than one plain loop, one file each."""
