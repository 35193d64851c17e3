"""Language models that see: an encoder, a bridge, and a causal language model."""
