"""The dual-stage deraining network: a rain mask in the first stage's attention, rearranged pixels in the second's."""
