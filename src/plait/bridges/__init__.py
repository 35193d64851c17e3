"""From encoders into language models: one file per idea, all with the same call."""
