"""Changes to training pictures, one a file; the file name is the registration (see `tapetum.data.transforms`)."""
