"""What models share: encoding, projections, heads, hubs, memory."""
