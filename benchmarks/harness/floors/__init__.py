"""What the libraries under tridist do by themselves: the least that anything built on them can cost."""
