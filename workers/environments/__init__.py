"""The worlds that ship."""
