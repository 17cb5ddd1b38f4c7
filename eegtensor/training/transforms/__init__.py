"""Maps of gradients, one file each."""
