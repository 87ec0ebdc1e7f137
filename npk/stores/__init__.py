"""What npk keeps in folders: manifests under a seal, files that are read without belief, chunks
with checksums.

Nothing here knows what the arrays hold: ``npk.gates`` keeps gates in such stores and ``npk.gram``
kernels.
"""
