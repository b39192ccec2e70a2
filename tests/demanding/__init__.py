"""Small methods that ask more of a training than one forward pass, one backward pass and one optimiser.

Without batch norm and dropout, so that a batch in parts, or shared by processes, is the same sum as the whole.
"""
