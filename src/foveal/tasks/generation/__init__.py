"""Generation: a generator and a discriminator that learn from each other, and how near its images come to real ones."""
