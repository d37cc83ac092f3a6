"""Character-level recurrent language models in JAX: train, compare, sample."""
