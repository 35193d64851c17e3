"""From a recipe to a trained run: tasks, stages, loop, checkpoints, health, comparisons."""
