"""Where encoders and heads meet: alignment, fusion, the classic systems; storage."""
