"""Encoders of pictures from timm, torchvision and packages."""
