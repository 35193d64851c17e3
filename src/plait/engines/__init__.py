"""Running a frozen tower fast: one call over torch and OpenVINO, and the caches of its output."""
