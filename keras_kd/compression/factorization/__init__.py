"""Low-rank factorization: a kernel becomes the product of two smaller ones."""
