"""Workers and servers that are started, watched and stopped together."""
