"""Processes that serve together: a coordinator whose pool they share."""
