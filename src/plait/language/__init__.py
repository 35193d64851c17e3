"""Causal language models behind one contract: a small one of plait's own, or transformers'."""
