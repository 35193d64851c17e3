"""Pictures from text: a discrete VAE makes pictures words, a transformer writes them (DALL-E)."""
