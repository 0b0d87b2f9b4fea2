"""Child processes with limits, forked from a template process that has loaded the models."""
