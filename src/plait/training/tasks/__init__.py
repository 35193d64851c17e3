"""What a stage trains on: tasks and their validation."""
