"""From a trained model to a bundle: ONNX graphs, model card, parity report.

`plait.runtime` runs bundles; only making them needs torch.
"""
