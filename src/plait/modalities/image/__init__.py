"""Pictures: decoded, measured, augmented, prepared, kept."""
