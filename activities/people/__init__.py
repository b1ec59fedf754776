"""People: the directory, signatures and edited arguments."""
