"""Online fine-tuning: an agent plays, and learns from what it has played."""
