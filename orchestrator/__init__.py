"""Decides: fitness -> selection -> births -> next generation; the loop; the command line."""
