"""The vocabulary that every other folder of plait shares: batches, errors, files, progress.

Nothing here imports another folder of plait. Only `batch` needs torch.
"""
