"""Which models and layers `mribatch export` accepts, tried one by one."""
