"""Routes, protection and answers over HTTP."""
