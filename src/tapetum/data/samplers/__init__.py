"""Ways to draw batches, one a file; the file name is the registration (see `tapetum.data.sampler`)."""
