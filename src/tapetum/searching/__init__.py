"""A person out of a gallery: whom to search for, the answer, cases, retention."""
