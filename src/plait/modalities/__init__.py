"""What each modality is made of: from bytes on disk to tensors."""
