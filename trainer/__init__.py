"""Learns: training set -> weights."""
