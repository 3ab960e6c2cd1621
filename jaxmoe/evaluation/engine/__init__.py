"""Programs, scores and journals: what every evaluation runs on."""
