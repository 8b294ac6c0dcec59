"""What every learner that trains networks shares: views, networks, training and checkpoints."""
