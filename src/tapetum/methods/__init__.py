"""Methods, one per file: the file name is the registration."""
