"""Settings, limits, errors, schemas: what every part of a server names."""
