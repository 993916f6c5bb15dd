"""Many runs from one file: planned and checked first, then trained here or on a Ray cluster."""
