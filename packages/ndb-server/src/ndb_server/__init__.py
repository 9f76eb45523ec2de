"""The NDB session store: a server that keeps sessions, each a small map with a lifetime."""
