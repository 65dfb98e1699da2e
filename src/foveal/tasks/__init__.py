"""What is learned and how: one task a job, one loop for all, and the comparison of mechanisms."""
