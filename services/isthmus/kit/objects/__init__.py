"""Objects: bytes by name, written once. The port, and the adapter that keeps them in an S3 store.

It stands below zone and border, which do not know each other and both keep objects: sealed files, and checkpoints.
"""
